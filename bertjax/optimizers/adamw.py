"""AdamW with decoupled weight decay: BERT's, without bias correction, and the standard one.

The table of model/partitioning.py sets which parameters decay.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from bertjax.config.optimizer import OptimizerConfig
from bertjax.model.partitioning import decay_mask
from bertjax.optimizers.bf16_moments import stored_in_bfloat16


def adamw(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns AdamW.

    Sources: Loshchilov & Hutter 2019 (arXiv:1711.05101); for `bias_correction=False` the optimizer of
    google-research/bert, which omits Adam's two bias corrections.
    """
    return optax.chain(*direction(config), optax.scale_by_learning_rate(schedule))


def direction(config: OptimizerConfig) -> tuple[optax.GradientTransformation, ...]:
    """Returns AdamW without the learning rate: clipping by the global norm, Adam, decoupled weight decay."""
    scale_by_adam = optax.scale_by_adam if config.bias_correction else _scale_by_uncorrected_adam
    adam = scale_by_adam(config.beta1, config.beta2, config.eps)
    return (
        _clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        stored_in_bfloat16(adam) if config.state_dtype == "bfloat16" else adam,
        optax.add_decayed_weights(config.weight_decay, decay_mask),
    )


def _scale_by_uncorrected_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """Returns Adam's direction m / (√v + eps) without bias correction of the moments."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, optax.ScaleByAdamState]:
        del params
        mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, state.nu, updates)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count=state.count + 1, mu=mu, nu=nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _clip_by_global_norm(limit: float) -> optax.GradientTransformation:
    """Scales gradients down to a global norm of at most `limit`.

    Unlike `optax.clip_by_global_norm` this is one multiplication by a scalar, which XLA fuses with the use of the
    gradients instead of writing them again.
    """

    def clip(gradients: PyTree, _: PyTree) -> PyTree:
        scale = limit / jnp.maximum(optax.global_norm(gradients), limit)
        return jax.tree.map(lambda g: g * scale, gradients)

    return optax.stateless(clip)
