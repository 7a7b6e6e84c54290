"""A masking unit of your own: blocks of four neighboring tokens are masked as a whole.

python -m bertjax.train --config=examples/masking_unit.py --workdir=runs/blocks --config.corpus=data/books
"""

import numpy as np

import bertjax
from bertjax.config.parse import default_config

TOKENS_PER_BLOCK = 4


@bertjax.register_masking_unit("block")
def block(input_ids, special, vocabulary):
    """Returns the number of each token's block, [batch, length]; `special` tokens are never masked."""
    return np.broadcast_to(np.arange(input_ids.shape[1]) // TOKENS_PER_BLOCK, input_ids.shape)


def get_config():
    """BERT-Base with masked blocks."""
    config = default_config()
    config.masking.unit = "block"
    return config
