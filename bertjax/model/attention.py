"""Attention: one function from queries, keys and values to contexts, and the layer around it.

`plain_attention` is the reference and works everywhere, with dropout. A kernel that computes the same function can
be put in its place by name.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model.dropout import dropout
from bertjax.model.layers import Dense
from bertjax.sharding import constrain

CONTEXT = "context"  # the name of attention's result, for remat


def plain_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    *,
    dropout_rate: float = 0.0,
    dropout_keys: jax.Array | None = None,
    dropout_site: jax.Array | int = 0,
) -> jax.Array:
    """softmax(query·key / √head_size)·value with dropout on the probabilities.

    query: [batch, rows, heads, head_size]; key, value: [batch, length, heads, head_size]; mask: [batch, length],
    nonzero where a key may be seen. Returns [batch, rows, heads, head_size] in query's dtype. Scores and softmax are
    f32. A row of which no key may be seen attends to all alike instead of becoming NaN.
    """
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None, :] != 0, scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    probabilities = dropout(probabilities, dropout_rate, dropout_keys, dropout_site)
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value, precision=precision)


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection (without residual and norm)."""

    config: ModelConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        seen: jax.Array,
        mask: jax.Array,
        dropout_keys: jax.Array | None,
        dropout_site: jax.Array | int,
    ) -> jax.Array:
        """x: [batch, rows, hidden], what it may see: [batch, length, hidden], mask: [batch, length] → like x."""
        config = self.config

        def heads(name: str, inputs: jax.Array, length: str | None) -> jax.Array:
            projected = Dense(config.hidden_size, config, self.dtype, name=name)(inputs)
            projected = projected.reshape(*inputs.shape[:-1], config.num_attention_heads, config.head_size)
            return constrain(projected, "batch", length, "heads", None)

        # Where the mesh splits sequences, each part asks with its own rows and sees all of them.
        context = plain_attention(
            heads("query", x, "length" if x.shape == seen.shape else None),
            heads("key", seen, None),
            heads("value", seen, None),
            mask,
            dropout_rate=config.attention_probs_dropout_prob,
            dropout_keys=dropout_keys,
            dropout_site=dropout_site,
        )
        context = checkpoint_name(context.reshape(x.shape), CONTEXT)
        return Dense(config.hidden_size, config, self.dtype, name="output")(context)
