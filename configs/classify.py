"""Classification of your own texts (sentiment, spam, topics) from a CSV, TSV or JSON-lines file.

python -m bertjax.finetune --config=configs/classify.py --workdir=DIR --config.init_from=DIR --config.data_dir=DIR
  --config.table.train=train.csv --config.table.dev=dev.csv --config.table.text=text --config.table.label=label

For other kinds of tasks set config.task to table/multi_label, table/regression or table/tagging.
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config():
    """The recipe of BERT with a single learning rate that suits most data sets."""
    config = default_config(FinetuneConfig)
    config.task = "table/classification"
    config.learning_rates = (3e-5,)
    return config
