"""Multi-head attention: the function from queries, keys and values to contexts, and the layer around it.

`plain_attention` is the reference: it runs on every platform and supports dropout. The layer uses a kernel of
`bertjax.model.fused_attention` instead where one supports the request. In layers of local attention a token attends
only to tokens within a window of positions; `local_attention` computes that in time and memory linear in the length.
"""

import dataclasses
import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from bertjax.arrays.types import Batch
from bertjax.config.model import ModelConfig
from bertjax.model import fused_attention
from bertjax.model.computation import Computation
from bertjax.model.dropout import Dropout
from bertjax.model.fused_attention import AttentionMask
from bertjax.model.layers import Dense, output_init
from bertjax.model.rotary import rotate
from bertjax.parallel.sharding import constrain

# Blocked attention copies the keys: each block of queries reads two blocks. From this many windows per row it is faster
# than full attention: forward and backward of 3,072 tokens on a CPU at 2, 3, 4 and 8 windows of 128 take 1.3, 0.7, 0.5
# and 0.3 times as long.
_MIN_BLOCKED_WINDOWS = 3
_NO_DROPOUT = Dropout()


def plain_attention(
    query: Float[Array, "batch queries heads head_size"],
    key: Float[Array, "batch length heads head_size"],
    value: Float[Array, "batch length heads head_size"],
    mask: AttentionMask,
    dropout: Dropout = _NO_DROPOUT,
) -> Float[Array, "batch queries heads head_size"]:
    """Computes softmax(query·key / √head_size)·value with dropout on the probabilities, in query's dtype.

    Scores and softmax are f32. A query whose keys are all masked attends to all of them equally instead of becoming
    NaN.
    """
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None
    query = query * jnp.asarray(1 / math.sqrt(query.shape[-1]), query.dtype)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, precision=precision, preferred_element_type=jnp.float32)
    visible = mask.key_sequences[:, None, None, :]
    visible = visible != 0 if mask.query_sequences is None else visible == mask.query_sequences[:, None, :, None]
    if mask.window_mask is not None:
        visible &= mask.window_mask[:, None]
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    probabilities = dropout(jax.nn.softmax(scores, axis=-1).astype(query.dtype))
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value, precision=precision)


def local_attention(
    query: Float[Array, "batch length heads head_size"],
    key: Float[Array, "batch length heads head_size"],
    value: Float[Array, "batch length heads head_size"],
    sequences: Int[Array, "batch length"],
    window: int,
    dropout: Dropout = _NO_DROPOUT,
) -> Float[Array, "batch length heads head_size"]:
    """Computes `plain_attention` in which a query attends to keys of its own sequence, at most `window` away.

    `sequences` numbers the sequence of each position. Queries are cut into blocks of two windows. Keys are cut the same
    way, shifted by one window, so that two adjacent blocks of keys cover a block of queries.
    """
    length, block = query.shape[1], 2 * window
    blocks = -(-length // block)

    def to_blocks(x: Array, before: int, after: int, fill: int = 0) -> Array:
        """[batch, length, …] → [batch, blocks, block, …]."""
        x = jnp.pad(x, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)], constant_values=fill)
        return x.reshape(x.shape[0], -1, block, *x.shape[2:])

    def key_blocks(x: Array, fill: int = 0) -> Array:
        """[batch, length, …] → [batch, blocks, 2 · block, …]."""
        chunks = to_blocks(x, window, window + blocks * block - length, fill)
        return jnp.concatenate([chunks[:, :-1], chunks[:, 1:]], axis=2)

    query_blocks = functools.partial(to_blocks, before=0, after=blocks * block - length)
    keys = None if dropout.keys is None else jax.vmap(lambda key: jax.random.split(key, blocks))(dropout.keys)
    query_offset, key_offset = jnp.arange(block)[:, None], jnp.arange(2 * block)
    window_mask = ((query_offset <= key_offset) & (key_offset <= query_offset + block))[None]

    def attend(keys: Array | None, sequences: tuple[Array, Array], query: Array, key: Array, value: Array) -> Array:
        mask = AttentionMask(*sequences, window_mask)
        return plain_attention(query, key, value, mask, dataclasses.replace(dropout, keys=keys))

    # Padding of the last block attends to itself and is sliced off below.
    sequences = sequences.astype(jnp.int32)
    block_sequences = (key_blocks(sequences, -1), query_blocks(sequences, fill=-1))
    operands = (query_blocks(query), key_blocks(key), key_blocks(value))
    contexts = jax.vmap(attend, in_axes=1, out_axes=1)(keys, block_sequences, *operands)
    return contexts.reshape(query.shape[0], blocks * block, *query.shape[2:])[:, :length]


@dataclasses.dataclass(frozen=True)
class SharedInputs:
    """The inputs that all layers share."""

    mask: Int[Array, "batch length"]  # 0 at padding; in packed rows the number of each token's sequence
    position_ids: Int[Array, "batch length"] | None = None  # packed rows only
    dropout_keys: Key[Array, " batch"] | None = None  # typed threefry keys; None disables dropout

    @classmethod
    def from_batch(cls, batch: Batch, dropout_keys: Key[Array, " batch"] | None) -> "SharedInputs":
        """Returns the shared inputs of a batch."""
        return cls(batch["attention_mask"], batch.get("position_ids"), dropout_keys)


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection (without residual and norm)."""

    config: ModelConfig
    computation: Computation
    local: bool = False  # attend within the config's window only

    @nn.compact
    def __call__(
        self,
        query_input: Float[Array, "batch queries hidden"],
        kv_input: Float[Array, "batch length hidden"],
        shared: SharedInputs,
        site: Integer[Array, ""] | int,
        query_indices: Int[Array, "batch queries"] | None = None,
    ) -> Float[Array, "batch queries hidden"]:
        """Attends from `query_input` to `kv_input`.

        The queries are all positions, or those at `query_indices`; `site` is the dropout site. In packed rows a query
        attends to its own sequence only.
        """
        config, length, position_ids = self.config, kv_input.shape[1], shared.position_ids
        window = config.attention_window if self.local else 0
        rate = 0.0 if shared.dropout_keys is None else config.attention_probs_dropout_prob
        dropout = Dropout(rate, shared.dropout_keys, site)
        platform = self.computation.platform or fused_attention.platform()
        impl = self._choose_impl(platform, length, rate > 0, window) if query_indices is None else "xla"
        blocked = impl == "xla" and window > 0 and query_input.shape[1] >= _MIN_BLOCKED_WINDOWS * config.local_attention
        indices = None if blocked else query_indices  # blocked attention computes all queries

        def at_queries(values: Array) -> Array:
            return values if indices is None else jnp.take_along_axis(values, indices, axis=1)

        key_positions = jnp.arange(length) if position_ids is None else position_ids
        query_positions = indices if position_ids is None and indices is not None else at_queries(key_positions)
        # Where the mesh splits sequences, each device computes its own queries against all keys.
        split = "length" if indices is None else None
        query = self._heads("query", kv_input if blocked else query_input, query_positions, split)
        key, value = self._heads("key", kv_input, key_positions), self._heads("value", kv_input)
        # With a window, padding attends to padding: every query then has a key.
        mask = AttentionMask(shared.mask, None if position_ids is None and not window else at_queries(shared.mask))
        if blocked:
            context = local_attention(query, key, value, shared.mask, window, dropout)
        elif impl == "xla":
            window_mask = _window_mask(jnp.arange(length)[None] if indices is None else indices, length, window)
            context = plain_attention(query, key, value, dataclasses.replace(mask, window_mask=window_mask), dropout)
        else:
            context = fused_attention.kernel(impl, platform, window)(query, key, value, mask)
        if blocked and query_indices is not None:
            context = jnp.take_along_axis(context, query_indices[..., None, None], axis=1)
        context = context.reshape(query_input.shape)
        if impl == "xla":  # fused kernels name their own results
            context = checkpoint_name(context, fused_attention.CONTEXT)
        return Dense(config.hidden_size, config, self.computation.dtype, output_init, name="output")(context)

    def _heads(
        self,
        name: str,
        inputs: Float[Array, "batch length hidden"],
        positions: Int[Array, "#batch length"] | Int[Array, " length"] | None = None,
        length_axis: str | None = None,
    ) -> Float[Array, "batch length heads head_size"]:
        """Projects `inputs` to heads, and rotates them by `positions` if the config has rotary positions."""
        config = self.config
        projected = Dense(config.hidden_size, config, self.computation.dtype, name=name)(inputs)
        projected = projected.reshape(*inputs.shape[:-1], config.num_attention_heads, config.head_size)
        projected = constrain(projected, "batch", length_axis, "heads", None)
        theta = config.local_rope_theta if self.local else config.global_rope_theta
        return rotate(projected, positions, theta) if theta and positions is not None else projected

    def _choose_impl(self, platform: str, length: int, dropout: bool, window: int) -> str:
        split = jax.sharding.get_abstract_mesh().shape.get("sequence", 1) > 1
        dtype, size = self.computation.dtype, self.config.head_size
        request = fused_attention.AttentionRequest(platform, dtype, length, size, dropout, split, window)
        return fused_attention.choose_impl(self.computation.attention_impl, request)


def _window_mask(
    query_positions: Int[Array, "#batch queries"], length: int, window: int
) -> Bool[Array, "#batch queries {length}"] | None:
    """Returns which of `length` keys are at most `window` away from each query; None where `window` is 0."""
    return jnp.abs(query_positions[..., None] - jnp.arange(length)) <= window if window else None
