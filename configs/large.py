"""BERT-Large: 24 layers, hidden size 1,024, 335M parameters, as published (Devlin et al. 2018, arXiv:1810.04805).

python -m bertjax.train --config=configs/large.py --workdir=runs/large --config.corpus=DIR

Published: 1M steps of 256 sequences in 4 days on 64 TPU v2 chips; held-out masked-LM perplexity 3.23 (table 6).
"""

from bertjax.config.parse import default_config


def get_config():
    """The recipe of BERT-Base at this size: 900,000 steps of 128 tokens, then 100,000 of 512."""
    config = default_config()
    config.model.num_hidden_layers = 24
    config.model.hidden_size = 1024
    config.model.num_attention_heads = 16
    config.model.intermediate_size = 4096
    config.layout.remat = "bert"  # without it, 16 sequences of 512 tokens do not fit on a v5e chip
    return config
