"""A label for each word: the entities of CoNLL-2003, or the parts of speech of a treebank in CoNLL-U.

python -m bertjax.finetune --config=configs/tagging.py:conll2003/ner --workdir=DIR --config.init_from=DIR
  --config.data_dir=DIR
python -m bertjax.finetune --config=configs/tagging.py:conllu/upos --workdir=DIR --config.init_from=DIR
  --config.data_dir=DIR

One's own labels are task table/tagging: see docs/finetuning.md.
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config(task: str = "conll2003/ner"):
    """The rates among which BERT chose (Devlin et al. 2018, appendix A.3)."""
    config = default_config(FinetuneConfig)
    config.task = task
    config.learning_rates = (5e-5, 3e-5, 2e-5)
    return config
