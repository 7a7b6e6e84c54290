"""Attention: one function from queries, keys and values to contexts, and the layer around it.

`plain_attention` is the reference and works everywhere, with dropout. Where one of `bertjax.model.fused_attention` can
do the same, the layer takes that. In layers of local attention a token sees only those that stand near it in the row;
`local_attention` computes that in time and memory that grow with the length, not with its square.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from bertjax.config.model import ModelConfig
from bertjax.model import fused_attention
from bertjax.model.computation import Computation
from bertjax.model.dropout import Dropout
from bertjax.model.fused_attention import AttentionMask
from bertjax.model.layers import Dense, output_init
from bertjax.model.rotary import rotate
from bertjax.parallel.sharding import constrain

# In blocks every row meets two windows of keys, which are copied for that. From so many windows of rows on that is less
# work than to meet all keys: forward and backward of 3,072 tokens on a CPU at 2, 3, 4 and 8 windows of 128 take 1.3,
# 0.7, 0.5 and 0.3 times as long.
_BLOCKS_FROM = 3
_NO_DROPOUT = Dropout()


def plain_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: AttentionMask, dropout: Dropout = _NO_DROPOUT
) -> jax.Array:
    """softmax(query·key / √head_size)·value with dropout on the probabilities.

    query: [batch, rows, heads, head_size]; key, value: [batch, length, heads, head_size]. Returns [batch, rows, heads,
    head_size] in query's dtype. Scores and softmax are f32. A row that may see no key attends to all alike instead of
    becoming NaN.
    """
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision, preferred_element_type=jnp.float32)
    seen = mask.key_segments[:, None, None, :]
    seen = seen != 0 if mask.query_segments is None else seen == mask.query_segments[:, None, :, None]
    if mask.near is not None:
        seen &= mask.near[:, None]
    scores = jnp.where(seen, scores, jnp.finfo(jnp.float32).min)
    probabilities = dropout(jax.nn.softmax(scores, axis=-1).astype(query.dtype))
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value, precision=precision)


def local_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segments: jax.Array,
    window: int,
    dropout: Dropout = _NO_DROPOUT,
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
    keys = None if dropout.keys is None else jax.vmap(lambda key: jax.random.split(key, blocks))(dropout.keys)
    at, of = jnp.arange(block)[:, None], jnp.arange(2 * block)
    near = ((at <= of) & (of <= at + block))[None]

    def attend(keys: jax.Array | None, segments: tuple[jax.Array, jax.Array], *operands: jax.Array) -> jax.Array:
        mask = AttentionMask(*segments, near)
        return plain_attention(*operands, mask, dataclasses.replace(dropout, keys=keys))

    # The rows that fill up see each other, and are cut off again.
    segments = segments.astype(jnp.int32)
    segments = (around(segments, -1), rows(segments, fill=-1))
    contexts = jax.vmap(attend, in_axes=1, out_axes=1)(keys, segments, rows(query), around(key), around(value))
    return contexts.reshape(query.shape[0], blocks * block, *query.shape[2:])[:, :length]


@dataclasses.dataclass(frozen=True)
class SharedInputs:
    """What every layer reads beside the output of the layer below it."""

    mask: jax.Array  # [batch, length]: 0 at padding; where rows are packed, the number of each token's sequence
    position_ids: jax.Array | None = None  # [batch, length], where rows are packed
    dropout_keys: jax.Array | None = None  # typed threefry keys [batch]; None drops nothing

    @classmethod
    def of(cls, batch: Mapping[str, jax.Array], dropout_keys: jax.Array | None) -> "SharedInputs":
        """Those of a batch."""
        return cls(batch["attention_mask"], batch.get("position_ids"), dropout_keys)


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection (without residual and norm)."""

    config: ModelConfig
    computation: Computation
    local: bool = False  # whether it sees the config's window only

    @nn.compact
    def __call__(
        self,
        query_input: jax.Array,
        kv_input: jax.Array,
        shared: SharedInputs,
        site: jax.Array | int,
        query_indices: jax.Array | None = None,
    ) -> jax.Array:
        """query_input: [batch, rows, hidden], kv_input: [batch, length, hidden] → like query_input.

        The rows are all of them, or those at `query_indices` [batch, rows]; `site` is that of dropout. Where rows are
        packed, a row sees its own sequence only.
        """
        config, length, position_ids = self.config, kv_input.shape[1], shared.position_ids
        window = config.attention_window if self.local else 0
        rate = 0.0 if shared.dropout_keys is None else config.attention_probs_dropout_prob
        dropout = Dropout(rate, shared.dropout_keys, site)
        platform = self.computation.platform or fused_attention.platform()
        impl = self._choose_impl(platform, length, rate > 0, window) if query_indices is None else "xla"
        blocks = impl == "xla" and window > 0 and query_input.shape[1] >= _BLOCKS_FROM * config.local_attention
        indices = None if blocks else query_indices  # blocks are of all rows

        def of_rows(values: jax.Array) -> jax.Array:
            return values if indices is None else jnp.take_along_axis(values, indices, axis=1)

        key_positions = jnp.arange(length) if position_ids is None else position_ids
        query_positions = indices if position_ids is None and indices is not None else of_rows(key_positions)
        # Where the mesh splits sequences, each part asks with its own rows and sees all of them.
        split = "length" if indices is None else None
        query = self._heads("query", kv_input if blocks else query_input, query_positions, split)
        key, value = self._heads("key", kv_input, key_positions), self._heads("value", kv_input)
        # With a window padding sees padding, so that no row sees nothing.
        mask = AttentionMask(shared.mask, None if position_ids is None and not window else of_rows(shared.mask))
        if blocks:
            context = local_attention(query, key, value, shared.mask, window, dropout)
        elif impl == "xla":
            near = _near(jnp.arange(length)[None] if indices is None else indices, length, window)
            context = plain_attention(query, key, value, dataclasses.replace(mask, near=near), dropout)
        else:
            context = fused_attention.kernel(impl, platform, window)(query, key, value, mask)
        if blocks and query_indices is not None:
            context = jnp.take_along_axis(context, query_indices[..., None, None], axis=1)
        context = context.reshape(query_input.shape)
        if impl == "xla":  # the fused ones name theirs
            context = checkpoint_name(context, fused_attention.CONTEXT)
        return Dense(config.hidden_size, config, self.computation.dtype, output_init, name="output")(context)

    def _heads(
        self, name: str, inputs: jax.Array, positions: jax.Array | None = None, length: str | None = None
    ) -> jax.Array:
        """A projection of inputs [batch, rows, hidden], rotated by `positions` if the config rotates."""
        config = self.config
        projected = Dense(config.hidden_size, config, self.computation.dtype, name=name)(inputs)
        projected = projected.reshape(*inputs.shape[:-1], config.num_attention_heads, config.head_size)
        projected = constrain(projected, "batch", length, "heads", None)
        theta = config.local_rope_theta if self.local else config.global_rope_theta
        return rotate(projected, positions, theta) if theta and positions is not None else projected

    def _choose_impl(self, platform: str, length: int, dropout: bool, window: int) -> str:
        split = jax.sharding.get_abstract_mesh().shape.get("sequence", 1) > 1
        how, size = self.computation, self.config.head_size
        request = fused_attention.Request(platform, how.dtype, length, size, dropout, split, window)
        return fused_attention.choose(how.attention_impl, request)


def _near(rows: jax.Array, length: int, window: int) -> jax.Array | None:
    """Which of `length` keys stand at most `window` from rows [batch, rows]: [batch, rows, length]; 0: no window."""
    return jnp.abs(rows[..., None] - jnp.arange(length)) <= window if window else None
