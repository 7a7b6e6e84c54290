"""BERT-Tiny: 2 layers, hidden size 128, 4.4M parameters, with the recipe of BERT-Base.

python -m bertjax.train --config=configs/tiny.py --workdir=runs/tiny --config.corpus=DIR

The size is one of Google's small models (Turc et al. 2019, arXiv:1908.08962).
"""

from bertjax.config.parse import default_config


def get_config():
    """The recipe of BERT-Base at this size."""
    config = default_config()
    config.model.num_hidden_layers = 2
    config.model.hidden_size = 128
    config.model.num_attention_heads = 2
    config.model.intermediate_size = 512
    return config
