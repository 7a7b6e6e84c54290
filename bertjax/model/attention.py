"""Attention: one function from queries, keys and values to contexts, and the layer around it.

`plain_attention` is the reference and works everywhere, with dropout. Where one of `bertjax.model.fused_attention` can
do the same, the layer takes that. In layers of local attention a token sees only those that stand near it in the row;
`local_attention` computes that in time and memory that grow with the length, not with its square.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bertjax.config.model import ModelConfig
from bertjax.model import fused_attention
from bertjax.model.dropout import dropout
from bertjax.model.layers import Dense, output_init
from bertjax.model.rotary import rotate
from bertjax.parallel.sharding import constrain

# In blocks every row meets two windows of keys, which are copied for that. From so many windows of rows on that is less
# work than to meet all keys: forward and backward of 3,072 tokens on a CPU at 2, 3, 4 and 8 windows of 128 take 1.3,
# 0.7, 0.5 and 0.3 times as long.
_BLOCKS_FROM = 3


def plain_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    query_segments: jax.Array | None = None,
    *,
    near: jax.Array | None = None,
    dropout_rate: float = 0.0,
    dropout_keys: jax.Array | None = None,
    dropout_site: jax.Array | int = 0,
) -> jax.Array:
    """softmax(query·key / √head_size)·value with dropout on the probabilities.

    query: [batch, rows, heads, head_size]; key, value: [batch, length, heads, head_size]; mask: [batch, length],
    nonzero where a key may be seen. With `query_segments` [batch, rows] the mask holds segments as well, and a row sees
    the keys of its own; with `near`, bool [batch or 1, rows, length], only those as well. Returns [batch, rows, heads,
    head_size] in query's dtype. Scores and softmax are f32. A row that may see no key attends to all alike instead of
    becoming NaN.
    """
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision, preferred_element_type=jnp.float32)
    seen = mask[:, None, None, :]
    seen = seen != 0 if query_segments is None else seen == query_segments[:, None, :, None]
    if near is not None:
        seen &= near[:, None]
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    probabilities = dropout(probabilities, dropout_rate, dropout_keys, dropout_site)
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value, precision=precision)


def local_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    window: int,
    *,
    dropout_rate: float = 0.0,
    dropout_keys: jax.Array | None = None,
    dropout_site: jax.Array | int = 0,
) -> jax.Array:
    """`plain_attention` where a row sees those of its segment that stand at most `window` from it.

    query, key, value: [batch, length, heads, head_size], segments: [batch, length]. Rows are cut into blocks of two
    windows. Keys are cut alike, but a window later, so that two of their blocks hold all that a block of rows sees.
    """
    length, block = query.shape[1], 2 * window
    blocks = -(-length // block)

    def cut(x: jax.Array, before: int, after: int, fill: int = 0) -> jax.Array:
        """[batch, length, …] → [batch, blocks, block, …]."""
        x = jnp.pad(x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)], constant_values=fill)
        return x.reshape(x.shape[0], -1, block, *x.shape[2:])

    def around(x: jax.Array, fill: int = 0) -> jax.Array:
        """[batch, length, …] → [batch, blocks, 2 · block, …]."""
        chunks = cut(x, window, window + blocks * block - length, fill)
        return jnp.concatenate([chunks[:, :-1], chunks[:, 1:]], axis=2)

    rows = functools.partial(cut, before=0, after=blocks * block - length)
    keys = None if dropout_keys is None else jax.vmap(lambda key: jax.random.split(key, blocks))(dropout_keys)
    at, of = jnp.arange(block)[:, None], jnp.arange(2 * block)
    near = ((at <= of) & (of <= at + block))[None]

    def attend(keys: jax.Array | None, *operands: jax.Array) -> jax.Array:
        dropping = {"dropout_rate": dropout_rate, "dropout_keys": keys, "dropout_site": dropout_site}
        return plain_attention(*operands, near=near, **dropping)

    # The rows that fill up see each other, and are cut off again.
    segments = segments.astype(jnp.int32)
    operands = (rows(query), around(key), around(value), around(segments, -1), rows(segments, fill=-1))
    contexts = jax.vmap(attend, in_axes=1, out_axes=1)(keys, *operands)
    return contexts.reshape(query.shape[0], blocks * block, *query.shape[2:])[:, :length]


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection (without residual and norm)."""

    config: ModelConfig
    dtype: jnp.dtype
    kernel: str = "xla"  # or what else config.layout.attention_impl may be
    platform: str = ""  # of `kernels.Request`; "": that of the devices in use
    local: bool = False  # whether it sees the config's window only

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        seen: jax.Array,
        mask: jax.Array,
        dropout_keys: jax.Array | None,
        dropout_site: jax.Array | int,
        positions: jax.Array | None = None,
        position_ids: jax.Array | None = None,
    ) -> jax.Array:
        """x: [batch, rows, hidden], what it may see: [batch, length, hidden], mask: [batch, length] → like x.

        The rows of x are all of them, or those at `positions` [batch, rows]. With `position_ids` [batch, length] the
        mask holds segments, and a row sees its own only.
        """
        config, length = self.config, seen.shape[1]
        window = config.attention_window if self.local else 0
        rate = 0.0 if dropout_keys is None else config.attention_probs_dropout_prob
        dropping = {"dropout_rate": rate, "dropout_keys": dropout_keys, "dropout_site": dropout_site}
        kernel = self._kernel(length, rate > 0, window) if positions is None else "xla"
        blocks = kernel == "xla" and window > 0 and x.shape[1] >= _BLOCKS_FROM * config.local_attention
        chosen = None if blocks else positions  # blocks are of all rows

        def of_rows(values: jax.Array) -> jax.Array:
            return values if chosen is None else jnp.take_along_axis(values, chosen, axis=1)

        places = jnp.arange(length) if position_ids is None else position_ids
        asking = chosen if position_ids is None and chosen is not None else of_rows(places)
        # Where the mesh splits sequences, each part asks with its own rows and sees all of them.
        query = self._heads("query", seen if blocks else x, asking, "length" if chosen is None else None)
        key, value = self._heads("key", seen, places), self._heads("value", seen)
        # With a window padding sees padding, so that no row sees nothing.
        segments = None if position_ids is None and not window else of_rows(mask)
        if blocks:
            context = local_attention(query, key, value, mask, window, **dropping)
        elif kernel == "xla":
            near = _near(jnp.arange(length)[None] if chosen is None else chosen, length, window)
            context = plain_attention(query, key, value, mask, segments, near=near, **dropping)
        else:
            context = fused_attention.run(kernel, query, key, value, mask, segments, window)
        if blocks and positions is not None:
            context = jnp.take_along_axis(context, positions[..., None, None], axis=1)
        context = context.reshape(x.shape)
        if kernel == "xla":  # kernels name theirs
            context = checkpoint_name(context, fused_attention.CONTEXT)
        return Dense(config.hidden_size, config, self.dtype, output_init, name="output")(context)

    def _heads(
        self, name: str, inputs: jax.Array, places: jax.Array | None = None, length: str | None = None
    ) -> jax.Array:
        """A projection of inputs [batch, rows, hidden], turned as they stand at `places` if the config rotates."""
        config = self.config
        projected = Dense(config.hidden_size, config, self.dtype, name=name)(inputs)
        projected = projected.reshape(*inputs.shape[:-1], config.num_attention_heads, config.head_size)
        projected = constrain(projected, "batch", length, "heads", None)
        theta = config.local_rope_theta if self.local else config.global_rope_theta
        return rotate(projected, places, theta) if theta and places is not None else projected

    def _kernel(self, length: int, dropout: bool, window: int) -> str:
        split = jax.sharding.get_abstract_mesh().shape.get("sequence", 1) > 1
        size = self.config.head_size
        request = fused_attention.Request(
            self.platform or fused_attention.platform(), self.dtype, length, size, dropout, split, window
        )
        return fused_attention.choose(self.kernel, request)


def _near(rows: jax.Array, length: int, window: int) -> jax.Array | None:
    """Which of `length` keys stand at most `window` from rows [batch, rows]: [batch, rows, length]; 0: no window."""
    return jnp.abs(rows[..., None] - jnp.arange(length)) <= window if window else None
