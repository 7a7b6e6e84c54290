"""Fused attention kernels, which never write the scores to memory, and the choice between them.

A kernel is a function from queries, keys and values to contexts that agrees with `plain_attention` up to rounding. None
supports dropout on the probabilities.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from bertjax.errors import UserError
from bertjax.parallel.sharding import partition_spec

CONTEXT = "context"  # the checkpoint name of attention's output

_LANES = 128  # of a TPU; splash divides sequences by them
# The shortest length at which `auto` chooses splash: below, its many small steps cost more than they save in memory.
_MIN_SPLASH_LENGTH = 512


@no_type_check  # JAX rebuilds it with placeholders instead of arrays
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AttentionMask:
    """Which keys a query attends to: those of its own sequence, within the window.

    Without `query_sequences` every query attends to all keys except padding, whose sequence is 0; with them, several
    sequences can share a row.
    """

    key_sequences: Int[Array, "batch length"]
    query_sequences: Int[Array, "batch queries"] | None = None
    window_mask: Bool[Array, "#batch queries length"] | None = None  # plain path only; None: no window


@dataclass(frozen=True)
class AttentionRequest:
    """The properties of a layer's attention that decide between implementations."""

    platform: str  # cpu, tpu, cuda (an NVIDIA GPU of compute capability 8.0 or higher), or gpu (any other)
    dtype: DTypeLike
    length: int
    head_size: int
    dropout: bool  # on the probabilities
    split: bool  # whether the mesh splits sequences
    window: int = 0  # keys visible to each side; 0: no window


def choose_impl(attention_impl: str, request: AttentionRequest) -> str:
    """Returns the implementation to use: "xla" (the plain path), "cudnn" or "splash".

    For `attention_impl` "auto" it chooses the fastest supported one, otherwise it returns `attention_impl`.

    Raises:
      UserError: `attention_impl` does not support the request.
    """
    if attention_impl == "auto":
        fused = {"tpu": "splash", "cuda": "cudnn"}.get(request.platform, "xla")
        worthwhile = fused != "splash" or request.length >= _MIN_SPLASH_LENGTH
        return fused if worthwhile and _obstacle(fused, request) is None else "xla"
    if obstacle := _obstacle(attention_impl, request):
        raise UserError(f"config.layout.attention_impl: {attention_impl!r} {obstacle}; set it to 'auto' or 'xla'")
    return attention_impl


def _obstacle(attention_impl: str, request: AttentionRequest) -> str | None:
    """Returns why an implementation does not support the request, or None if it does."""
    if attention_impl == "xla":
        return None
    dtype = jnp.dtype(request.dtype)
    half_precision = f"computes in bfloat16, but config.dtype is {dtype.name}"
    cudnn = [
        (request.window, "has no two-sided window, but config.model.local_attention is not 0"),
        (request.platform != "cuda", "needs an NVIDIA GPU of compute capability 8.0 or higher"),
        (dtype not in (jnp.bfloat16, jnp.float16), half_precision),
        (
            request.head_size % 8 or request.head_size > 128,
            f"needs a head size that is a multiple of 8, at most 128, but it is {request.head_size}",
        ),
        (request.length % 2, f"needs even lengths, but one is {request.length}"),
    ]
    splash = [
        (request.platform not in ("tpu", "cpu"), "needs a TPU"),  # interpreted on a CPU, for comparisons
        (request.platform == "tpu" and dtype != jnp.bfloat16, half_precision),
        (request.length % _LANES, f"needs lengths that are multiples of {_LANES}, but one is {request.length}"),
    ]
    obstacles = [
        (request.dropout, "has no dropout, but config.model.attention_probs_dropout_prob is not 0"),
        (request.split, "computes whole sequences, but config.mesh.sequence is not 1"),
        *{"cudnn": cudnn, "splash": splash}[attention_impl],
    ]
    return next((reason for applies, reason in obstacles if applies), None)


def platform(device: jax.Device | None = None) -> str:  # pyright: ignore[reportInvalidTypeForm]  # untyped in JAX
    """Returns `AttentionRequest.platform` for a device (present or described), by default for the mesh in use."""
    mesh = jax.sharding.get_abstract_mesh()
    if device is not None:
        name = device.platform
    else:
        name = jax.devices()[0].platform if mesh.empty else mesh.abstract_device.platform
    if name != "gpu":
        return name
    capability = str(getattr(jax.local_devices(backend="gpu")[0], "compute_capability", ""))
    major = capability.partition(".")[0]
    return "cuda" if major.isdigit() and int(major) >= 8 else "gpu"  # AMD's capability is a name like gfx942


def kernel(attention_impl: str, platform: str, window: int = 0) -> Callable[..., Array]:
    """Returns "cudnn" or "splash" as a function (query, key, value, mask) → softmax(query·key / √head_size)·value.

    Arguments and result of the function are those of `plain_attention`; each device computes its own rows and heads.
    Only splash supports a window, the number of keys visible to each side, and requires `mask.query_sequences` with it,
    which give every query a key. The residuals of the backward pass are named CONTEXT or come from primitives that
    `save_attention` recognizes.
    """
    function = cudnn_attention
    if attention_impl == "splash":
        function = functools.partial(splash_attention, window=window, interpret=platform == "cpu")
    if jax.sharding.get_abstract_mesh().empty:
        return function
    heads, rows = partition_spec(("batch", "length", "heads", "small")), partition_spec(("batch", "length"))
    # Outputs of pallas_call do not declare the axes along which they vary.
    return jax.shard_map(function, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)


def splash_attention(
    query: Float[Array, "batch length heads head_size"],
    key: Float[Array, "batch length heads head_size"],
    value: Float[Array, "batch length heads head_size"],
    mask: AttentionMask,
    *,
    window: int = 0,
    interpret: bool = False,
) -> Float[Array, "batch length heads head_size"]:
    """JAX's Pallas kernel for TPUs, on one device; the length must be a multiple of 128.

    `interpret` runs it on any device, slowly. Rows that hold only padding attend to all positions.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads, head_size = query.shape[1:]
    key_sequences, query_sequences = mask.key_sequences, mask.query_sequences
    if query_sequences is None:
        visible = key_sequences != 0
        visible |= ~jnp.any(visible, axis=1, keepdims=True)  # the kernel's gradient is wrong for rows without a key
        key_sequences, query_sequences = visible, jnp.ones_like(key_sequences)
    # Small blocks skip more of the keys beyond a window.
    block = next(size for size in ((256, _LANES) if window else (512, 384, 256, _LANES)) if length % size == 0)
    blocks = splash.BlockSizes(
        **dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"), block), use_fused_bwd_kernel=True
    )
    shape = (length, length)
    head_mask = splash.LocalMask(shape, (window, window), offset=0) if window else splash.FullMask(shape)
    attend = splash.make_splash_mha(
        splash.MultiHeadMask([head_mask] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=CONTEXT,
        interpret=interpret,
    )
    query = query * np.asarray(head_size**-0.5, query.dtype)
    heads_first = (array.swapaxes(1, 2) for array in (query, key, value))
    segment_ids = splash.SegmentIds(query_sequences.astype(jnp.int32), key_sequences.astype(jnp.int32))
    contexts = cast(Array, jax.vmap(attend)(*heads_first, segment_ids))  # a tuple only if it returns residuals
    return contexts.swapaxes(1, 2)


def cudnn_attention(
    query: Float[Array, "batch length heads head_size"],
    key: Float[Array, "batch length heads head_size"],
    value: Float[Array, "batch length heads head_size"],
    mask: AttentionMask,
    *,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "batch length heads head_size"]:
    """CuDNN's flash attention, on one device.

    Without `mask.query_sequences` padding must be at the end of rows, as cuDNN receives lengths; with them it reads a
    mask from memory, which is slower. `implementation` "xla" computes the same on any device.
    """
    attended, lengths = None, None
    if mask.query_sequences is not None:
        attended = mask.query_sequences[:, None, :, None] == mask.key_sequences[:, None, None, :]
    else:  # rows of padding alone read one key, as the result without keys is NaN
        lengths = jnp.maximum(1, jnp.sum(mask.key_sequences != 0, axis=1, dtype=jnp.int32))
    return jax.nn.dot_product_attention(
        query, key, value, mask=attended, key_value_seq_lengths=lengths, implementation=implementation
    )


def save_attention(primitive: Primitive, *_: object, **__: object) -> bool:
    """A remat policy that keeps the outputs of cuDNN's forward pass, which cannot be given checkpoint names."""
    return primitive.name.startswith("dot_product_attention_fwd")
