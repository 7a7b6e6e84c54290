"""SWAG (Zellers et al. 2018, arXiv:1808.05326): choice of the continuation among four sentences.

python -m bertjax.finetune --config=configs/swag.py --workdir=DIR --config.init_from=DIR --config.data_dir=DIR
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config():
    """The recipe of BERT (Devlin et al. 2018, section 4.4)."""
    config = default_config(FinetuneConfig)
    config.task = "swag"
    config.learning_rates = (2e-5,)
    config.batch = 16
    return config
