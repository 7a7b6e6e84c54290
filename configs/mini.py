"""BERT-Mini: 4 layers, hidden size 256, 11.3M parameters, with the recipe of BERT-Base.

python -m bertjax.train --config=configs/mini.py --workdir=runs/mini --config.corpus=DIR

The size is one of Google's small models (Turc et al. 2019, arXiv:1908.08962).
"""

from bertjax.config.parse import default_config


def get_config():
    """The recipe of BERT-Base at this size."""
    config = default_config()
    config.model.num_hidden_layers = 4
    config.model.hidden_size = 256
    config.model.num_attention_heads = 4
    config.model.intermediate_size = 1024
    return config
