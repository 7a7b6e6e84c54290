"""BERT-Base: 12 layers, hidden size 768, 110M parameters, as published (Devlin et al. 2018, arXiv:1810.04805).

python -m bertjax.train --config=configs/base.py --workdir=runs/base --config.corpus=DIR

Published: 1M steps of 256 sequences in 4 days on 16 TPU v2 chips; held-out masked-LM perplexity 3.99 (table 6).
"""

from bertjax.config.parse import default_config


def get_config():
    """The defaults are those of BERT-Base."""
    return default_config()
