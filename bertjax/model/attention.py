"""Attention: one function from queries, keys and values to contexts, and the layer around it.

`plain_attention` is the reference and works everywhere, with dropout. Where a kernel of `bertjax.model.kernels` can
do the same, the layer takes that.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bertjax.config import ModelConfig
from bertjax.model import kernels
from bertjax.model.dropout import dropout
from bertjax.model.layers import Dense
from bertjax.sharding import constrain


def plain_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    query_segments: jax.Array | None = None,
    *,
    dropout_rate: float = 0.0,
    dropout_keys: jax.Array | None = None,
    dropout_site: jax.Array | int = 0,
) -> jax.Array:
    """softmax(query·key / √head_size)·value with dropout on the probabilities.

    query: [batch, rows, heads, head_size]; key, value: [batch, length, heads, head_size]; mask: [batch, length],
    nonzero where a key may be seen. With `query_segments` [batch, rows] the mask holds segments as well, and a row sees
    the keys of its own. Returns [batch, rows, heads, head_size] in query's dtype. Scores and softmax are f32. A row
    that may see no key attends to all alike instead of becoming NaN.
    """
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision, preferred_element_type=jnp.float32)
    seen = mask[:, None, None, :]
    seen = seen != 0 if query_segments is None else seen == query_segments[:, None, :, None]
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    probabilities = dropout(probabilities, dropout_rate, dropout_keys, dropout_site)
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value, precision=precision)


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection (without residual and norm)."""

    config: ModelConfig
    dtype: jnp.dtype
    kernel: str = "xla"  # or what else config.layout.attention may be

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        seen: jax.Array,
        mask: jax.Array,
        dropout_keys: jax.Array | None,
        dropout_site: jax.Array | int,
        query_segments: jax.Array | None = None,
    ) -> jax.Array:
        """x: [batch, rows, hidden], what it may see: [batch, length, hidden], mask: [batch, length] → like x.

        With `query_segments` [batch, rows] the mask holds segments as well, and a row sees its own only.
        """
        config = self.config

        def heads(name: str, inputs: jax.Array, length: str | None) -> jax.Array:
            projected = Dense(config.hidden_size, config, self.dtype, name=name)(inputs)
            projected = projected.reshape(*inputs.shape[:-1], config.num_attention_heads, config.head_size)
            return constrain(projected, "batch", length, "heads", None)

        # Where the mesh splits sequences, each part asks with its own rows and sees all of them.
        every = x.shape == seen.shape
        query = heads("query", x, "length" if every else None)
        key, value = heads("key", seen, None), heads("value", seen, None)
        rate = 0.0 if dropout_keys is None else config.attention_probs_dropout_prob
        kernel = self._kernel(seen.shape[1], dropout=rate > 0) if every else "xla"
        if kernel == "xla":
            context = plain_attention(
                query,
                key,
                value,
                mask,
                query_segments,
                dropout_rate=rate,
                dropout_keys=dropout_keys,
                dropout_site=dropout_site,
            )
            context = checkpoint_name(context.reshape(x.shape), kernels.CONTEXT)
        else:
            context = kernels.run(kernel, query, key, value, mask, query_segments).reshape(x.shape)
        return Dense(config.hidden_size, config, self.dtype, name="output")(context)

    def _kernel(self, length: int, dropout: bool) -> str:
        split = jax.sharding.get_abstract_mesh().shape.get("sequence", 1) > 1
        request = kernels.Request(kernels.platform(), self.dtype, length, self.config.head_size, dropout, split)
        return kernels.choose(self.kernel, request)
