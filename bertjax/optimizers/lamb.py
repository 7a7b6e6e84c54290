"""LAMB: Adam whose step in each layer is as long as the layer's weights are large."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bertjax.arrays.trees import path_name
from bertjax.config.optimizer import OptimizerConfig
from bertjax.model.partitioning import decay_mask, is_stacked
from bertjax.optimizers.adamw import direction


def lamb(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW's direction, times the trust ratio of each layer, times the learning rate.

    Source: You et al. 2019 (arXiv:1904.00962), algorithm 2 with φ the identity; the gradients are clipped by their
    global norm first.
    """
    return optax.chain(*direction(config), scale_by_trust_ratio(), optax.scale_by_learning_rate(schedule))


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """Each update times ‖parameter‖ / ‖update‖; 1 where one of them is zero, and where weight decay does not apply.

    A stack of layers has a ratio for each of them, so that stacking changes nothing.
    """

    def one(path: tuple[Any, ...], decays: bool, update: jax.Array, param: jax.Array) -> jax.Array:
        if not decays:
            return update
        stacked = is_stacked(path_name(path))
        param_norm, update_norm = _norm(param, stacked), _norm(update, stacked)
        defined = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(defined, param_norm / jnp.where(defined, update_norm, 1), 1)

    def scale(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(one, decay_mask(params), updates, params)

    return optax.stateless(scale)


def _norm(x: jax.Array, stacked: bool) -> jax.Array:
    """The Euclidean norm of `x`, or of each layer of a stack [layers, …], with axes to multiply `x` by it."""
    axes = tuple(range(1 if stacked else 0, x.ndim))
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
