"""Layer-wise learning rates: lower layers, whose features are more general, change less.

Howard & Ruder 2018 (arXiv:1801.06146); as in ELECTRA's fine-tuning (Clark et al. 2020, arXiv:2003.10555), the rate of a
layer is `decay` times that of the layer above it, and the embeddings count as a layer below the first.
"""

import jax
import jax.numpy as jnp
import optax

from bertjax.arrays.trees import path_name
from bertjax.config.model import ModelConfig
from bertjax.model.partitioning import layers_above


def scale_by_layer(decay: float, config: ModelConfig) -> optax.GradientTransformation:
    """Multiplies updates by decay ** (layers above), which is 1 for heads."""
    if decay == 1:
        return optax.identity()

    def scale(path: jax.tree_util.KeyPath, update: jax.Array) -> jax.Array:
        above = layers_above(path_name(path), config)
        factor = jnp.asarray(decay, update.dtype) ** jnp.asarray(above, update.dtype)
        return update * factor.reshape(factor.shape + (1,) * (update.ndim - factor.ndim))

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates))
