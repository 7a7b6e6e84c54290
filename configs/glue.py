"""GLUE (Wang et al. 2018, arXiv:1804.07461): one task, or all of them.

python -m bertjax.finetune --config=configs/glue.py:sst2 --workdir=DIR --config.init_from=DIR --config.data_dir=DIR
python -m bertjax.finetune --config=configs/glue.py:all --workdir=DIR --config.init_from=DIR --config.data_dir=DIR

The recipe of BERT: 3 epochs of batches of 32, the best of four learning rates on dev (Devlin et al. 2018, section 4.1).
Tasks: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, and all.
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config(task: str = "all"):
    """The recipe of BERT for `task`."""
    config = default_config(FinetuneConfig)
    config.task = f"glue/{task}"
    config.learning_rates = (5e-5, 4e-5, 3e-5, 2e-5)
    return config
