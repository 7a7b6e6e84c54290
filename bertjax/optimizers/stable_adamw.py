"""StableAdamW: AdamW with smaller steps where the second moment lags behind the gradients."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from bertjax.arrays.trees import path_name
from bertjax.config.optimizer import OptimizerConfig
from bertjax.model.partitioning import is_stacked
from bertjax.optimizers.adamw import direction


def stable_adamw(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns StableAdamW, which divides each tensor's update by the ratio of its gradient to Adam's expectation.

    Source: Wortsman et al. 2023 (arXiv:2304.13013), algorithm 2. It replaces clipping: set `clip_norm` to 0.
    """
    clip, *adam = direction(config)
    return optax.chain(clip, clip_updates(optax.chain(*adam), config), optax.scale_by_learning_rate(schedule))


def clip_updates(adam: optax.GradientTransformation, config: OptimizerConfig) -> optax.GradientTransformation:
    """Divides the updates of `adam` by max(1, RMS), where RMS² is the mean of g² / max(v, eps²), v bias-corrected.

    The first of `adam`'s states must be an `optax.ScaleByAdamState`. Each layer of a stack has its own RMS.
    """

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        gradients = updates
        updates, state = adam.update(gradients, state, params)
        moments = state[0]
        correction = 1 - config.beta2 ** moments.count.astype(jnp.float32)

        def clip(path: jax.tree_util.KeyPath, update: jax.Array, gradient: jax.Array, nu: jax.Array) -> jax.Array:
            expected = jnp.maximum(nu.astype(jnp.float32) / correction, config.eps**2)
            axes = tuple(range(1 if is_stacked(path_name(path)) else 0, gradient.ndim))
            rms = jnp.sqrt(jnp.mean(jnp.square(gradient) / expected, axis=axes, keepdims=True))
            return update / jnp.maximum(rms, 1)

        return jax.tree_util.tree_map_with_path(clip, updates, gradients, moments.nu), state

    return optax.GradientTransformation(adam.init, update)
