"""An optimizer of your own: Lion from optax, instead of AdamW.

python -m bertjax.train --config=examples/optimizer.py --workdir=runs/lion --config.corpus=data/books

Lion (Chen et al. 2023, arXiv:2302.06675) wants a learning rate 3 to 10 times smaller than AdamW's, and a weight decay
as many times larger.
"""

import optax

import bertjax
from bertjax.config.parse import default_config
from bertjax.model.partitioning import decay_mask


@bertjax.register_optimizer("lion")
def lion(config, schedule):
    """Returns Lion with BERT's clipping and its choice of the parameters that decay."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.lion(schedule, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decay_mask),
    )


def get_config():
    """BERT-Base trained with Lion."""
    config = default_config()
    config.optimizer.name = "lion"
    config.optimizer.learning_rate = 2e-5
    config.optimizer.beta2 = 0.99
    config.optimizer.weight_decay = 0.05
    return config
