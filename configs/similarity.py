"""Sentence vectors: fine-tuning of texts that are encoded on their own (Reimers & Gurevych 2019, arXiv:1908.10084).

python -m bertjax.finetune --config=configs/similarity.py:sick/relatedness --workdir=DIR --config.init_from=DIR
  --config.data_dir=DIR

The task decides the loss: a regression of two texts (glue/stsb, sick/relatedness, table/regression) trains their
cosine, a classification (glue/mnli, sick/entailment) a softmax over both vectors and their difference, and
table/retrieval finds each text's partner among all of the batch; `--config.table.negative` names a column of texts that
are not to be found.
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config(task: str = "glue/stsb"):
    """One epoch or a few at a low rate; labels of SICK go from 1 to 5, of STS-B from 0 to 5."""
    config = default_config(FinetuneConfig)
    config.task = task
    config.sentence.bi_encoder = True
    config.learning_rates = (2e-5,)
    config.sentence.lowest = 1.0 if task.startswith("sick/") else 0.0
    return config
