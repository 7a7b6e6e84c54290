"""An objective of your own: masked LM with a z-loss that keeps the logits' normalizers small.

python -m bertjax.train --config=examples/objective.py --workdir=runs/z_loss --config.corpus=data/books

The z-loss (Chowdhery et al. 2022, arXiv:2204.02311, section 5) adds 1e-4 · log²(Z) per predicted token.
"""

import dataclasses

import jax
import jax.numpy as jnp

import bertjax
from bertjax.config.parse import default_config
from bertjax.objectives.terms import weighted

Z_LOSS_WEIGHT = 1e-4


@bertjax.register_objective("z_loss")
def z_loss(config, base):
    """Returns the built-in objective with one more term; every term whose name ends in `_loss` adds to the loss."""

    def terms(outputs, batch):
        log_z = jax.nn.logsumexp(outputs["masked_lm_logits"].astype(jnp.float32), axis=-1)
        term = weighted(Z_LOSS_WEIGHT * log_z**2, batch["masked_lm_weights"])
        return base.terms(outputs, batch) | {"z_loss": term}

    def weights(batch):
        return base.weights(batch) | {"z_loss": jnp.sum(batch["masked_lm_weights"])}

    return dataclasses.replace(base, terms=terms, weights=weights)


def get_config():
    """BERT-Base with this objective."""
    config = default_config()
    config.objective = "z_loss"
    return config
