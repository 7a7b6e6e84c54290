"""Tagging of words: the entities of CoNLL-2003, or the parts of speech of a treebank in CoNLL-U.

python -m bertjax.finetune --config=configs/tagging.py:conll2003/ner --workdir=DIR --config.init_from=DIR
  --config.data_dir=DIR
python -m bertjax.finetune --config=configs/tagging.py:conllu/upos --workdir=DIR --config.init_from=DIR
  --config.data_dir=DIR

For your own labels use the task table/tagging: see docs/how-to/finetune-on-your-data.md.
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config(task: str = "conll2003/ner"):
    """The learning rates of BERT's sweep (Devlin et al. 2018, appendix A.3)."""
    config = default_config(FinetuneConfig)
    config.task = task
    config.learning_rates = (5e-5, 3e-5, 2e-5)
    return config
