"""Sentence vectors: fine-tuning of bi-encoders (Reimers & Gurevych 2019, arXiv:1908.10084).

python -m bertjax.finetune --config=configs/similarity.py:sick/relatedness --workdir=DIR --config.init_from=DIR
  --config.data_dir=DIR

The task determines the loss. A regression of two texts (glue/stsb, sick/relatedness, table/regression) trains their
cosine similarity, a classification (glue/mnli, sick/entailment) a softmax over both vectors and their difference, and
table/retrieval identifies the partner of each text among all texts of the batch; `--config.table.negative` names a
column of hard negatives.
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config(task: str = "glue/stsb"):
    """A few epochs at a low learning rate; labels range from 1 to 5 in SICK, from 0 to 5 in STS-B."""
    config = default_config(FinetuneConfig)
    config.task = task
    config.sentence.bi_encoder = True
    config.learning_rates = (2e-5,)
    config.sentence.lowest = 1.0 if task.startswith("sick/") else 0.0
    return config
