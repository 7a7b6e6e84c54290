"""Question answering by spans of a passage: SQuAD v1.1 and v2.0, or your own files in their format.

python -m bertjax.finetune --config=configs/squad.py:v1.1 --workdir=DIR --config.init_from=DIR --config.data_dir=DIR

The recipe of BERT (Devlin et al. 2018, sections 4.2 and 4.3) with the windows of transformers' `run_qa`: 384 tokens,
an overlap of 128 passage tokens, and at most 64 tokens of a question. (BERT's own code advances windows by 128 tokens,
an overlap of about 240.)
"""

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config


def get_config(version: str = "v1.1"):
    """The recipe of BERT for `version`; v2.0 includes questions without an answer."""
    config = default_config(FinetuneConfig)
    config.task = f"squad/{version}"
    config.learning_rates = (5e-5,)
    config.epochs = (2 if version == "v2.0" else 3,)
    config.batch = 48 if version == "v2.0" else 32
    config.length, config.stride, config.question_length = 384, 128, 64
    return config
