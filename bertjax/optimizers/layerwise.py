"""Layer-wise learning rates: lower layers, which know more of language at large, move less.

Howard & Ruder 2018 (arXiv:1801.06146); as ELECTRA fine-tunes (Clark et al. 2020, arXiv:2003.10555): a layer's rate is
`decay` times that of the layer above it, the embeddings' that of a layer below the first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from bertjax.arrays.trees import path_name
from bertjax.config.model import ModelConfig
from bertjax.model.partitioning import layers_above


def scale_by_layer(decay: float, config: ModelConfig) -> optax.GradientTransformation:
    """Multiplies updates by decay ** (layers above); those of the heads stay as they are."""
    if decay == 1:
        return optax.identity()

    def one(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        above = layers_above(path_name(path), config)
        factor = jnp.asarray(decay, update.dtype) ** jnp.asarray(above, update.dtype)
        return update * factor.reshape(factor.shape + (1,) * (update.ndim - factor.ndim))

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(one, updates))
