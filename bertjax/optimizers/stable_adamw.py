"""StableAdamW: AdamW that takes a shorter step where its second moment lags behind the gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bertjax.arrays.trees import path_name
from bertjax.config.optimizer import OptimizerConfig
from bertjax.model.partitioning import is_stacked
from bertjax.optimizers.adamw import direction


def stable_adamw(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW's direction, in each tensor divided by how much larger its gradient is than Adam expects, times the rate.

    Source: Wortsman et al. 2023 (arXiv:2304.13013), algorithm 2. It takes the place of clipping: set `clip_norm` to 0.
    """
    clip, *adam = direction(config)
    return optax.chain(clip, clip_updates(optax.chain(*adam), config), optax.scale_by_learning_rate(schedule))


def clip_updates(adam: optax.GradientTransformation, config: OptimizerConfig) -> optax.GradientTransformation:
    """`adam`, its updates over max(1, RMS) with RMS² the mean of g² / max(v, eps²), where v is corrected for its start.

    The first of `adam`'s states is an `optax.ScaleByAdamState`. Each layer of a stack has an RMS of its own.
    """

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = adam.update(gradients, state, params)
        moments = state[0]
        correction = 1 - config.beta2 ** moments.count.astype(jnp.float32)

        def one(path: tuple[Any, ...], update: jax.Array, gradient: jax.Array, second: jax.Array) -> jax.Array:
            expected = jnp.maximum(second.astype(jnp.float32) / correction, config.eps**2)
            axes = tuple(range(1 if is_stacked(path_name(path)) else 0, gradient.ndim))
            rms = jnp.sqrt(jnp.mean(jnp.square(gradient) / expected, axis=axes, keepdims=True))
            return update / jnp.maximum(rms, 1)

        return jax.tree_util.tree_map_with_path(one, updates, gradients, moments.nu), state

    return optax.GradientTransformation(adam.init, update)
