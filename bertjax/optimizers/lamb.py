"""LAMB: Adam whose step in each layer is proportional to the norm of the layer's weights."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from bertjax.arrays.trees import path_name
from bertjax.config.optimizer import OptimizerConfig
from bertjax.model.partitioning import decay_mask, is_stacked
from bertjax.optimizers.adamw import direction


def lamb(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns LAMB: AdamW's direction, times the trust ratio of each layer, times the learning rate.

    Source: You et al. 2019 (arXiv:1904.00962), algorithm 2 with φ the identity, after clipping by the global norm.
    """
    return optax.chain(*direction(config), scale_by_trust_ratio(), optax.scale_by_learning_rate(schedule))


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """Scales each update by ‖parameter‖ / ‖update‖, or by 1 if either is zero or weight decay does not apply.

    Each layer of a stack has its own ratio, as if it were not stacked.
    """

    def scale_leaf(path: jax.tree_util.KeyPath, decays: bool, update: jax.Array, param: jax.Array) -> jax.Array:
        if not decays:
            return update
        stacked = is_stacked(path_name(path))
        param_norm, update_norm = _norm(param, stacked), _norm(update, stacked)
        defined = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(defined, param_norm / jnp.where(defined, update_norm, 1), 1)

    def scale(updates: PyTree, params: PyTree) -> PyTree:
        return jax.tree_util.tree_map_with_path(scale_leaf, decay_mask(params), updates, params)

    return optax.stateless(scale)


def _norm(x: jax.Array, stacked: bool) -> jax.Array:
    """Returns the Euclidean norm of `x`, or of each layer of a stack [layers, …], broadcastable against `x`."""
    axes = tuple(range(1 if stacked else 0, x.ndim))
    return jnp.sqrt(jnp.sum(jnp.square(x), axis=axes, keepdims=True))
