"""Attention by fused kernels, which never write the scores to memory, and the choice between them.

A kernel is a function from queries, keys and values to contexts that agrees with `plain_attention` but for rounding.
None has dropout on the probabilities.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bertjax.errors import UserError
from bertjax.parallel.sharding import spec

CONTEXT = "context"  # the name of attention's results, for remat

_LANES = 128  # of a TPU: what splash divides a sequence by
# From here on `auto` takes splash: below, its many small steps cost more than the scores that it keeps out of memory.
_SPLASH_FROM = 512


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AttentionMask:
    """Which keys a query attends to: those of its segment that are near.

    Without `query_segments` [batch, rows] these are all keys but padding, whose segment is 0; with them, several
    sequences can lie in one row of the batch.
    """

    key_segments: jax.Array  # [batch, length]
    query_segments: jax.Array | None = None
    near: jax.Array | None = None  # bool [batch or 1, rows, length], of the plain path; None: all are


@dataclass(frozen=True)
class Request:
    """What the choice of an implementation of attention depends on."""

    platform: str  # cpu, tpu, cuda (an NVIDIA GPU of compute capability 8.0 or higher), or gpu (any other)
    dtype: Any
    length: int
    head_size: int
    dropout: bool  # on the probabilities
    split: bool  # whether the mesh splits sequences
    window: int = 0  # how far a row sees to each side; 0: everywhere


def choose(attention_impl: str, request: Request) -> str:
    """The implementation to use: "xla" (the plain path), "cudnn" or "splash". Only `attention_impl` "auto" chooses.

    Raises:
      UserError: the implementation that is asked for cannot do it.
    """
    if attention_impl == "auto":
        fused = {"tpu": "splash", "cuda": "cudnn"}.get(request.platform, "xla")
        worth = fused != "splash" or request.length >= _SPLASH_FROM
        return fused if worth and _obstacle(fused, request) is None else "xla"
    if obstacle := _obstacle(attention_impl, request):
        raise UserError(
            f"config.layout.attention_impl is {attention_impl!r}, which {obstacle}; 'auto' and 'xla' always work"
        )
    return attention_impl


def _obstacle(attention_impl: str, request: Request) -> str | None:
    """Why an implementation cannot be used."""
    if attention_impl == "xla":
        return None
    computes = f"computes in bfloat16, but config.dtype is {jnp.dtype(request.dtype).name}"
    cudnn = [
        (request.window, "has no window to both sides, but config.model.local_attention is not 0"),
        (request.platform != "cuda", "needs an NVIDIA GPU of compute capability 8.0 or higher"),
        (request.dtype not in (jnp.bfloat16, jnp.float16), computes),
        (
            request.head_size % 8 or request.head_size > 128,
            f"needs heads whose size is a multiple of 8 up to 128, but it is {request.head_size}",
        ),
        (request.length % 2, f"needs even lengths, but one is {request.length}"),
    ]
    splash = [
        (request.platform not in ("tpu", "cpu"), "needs a TPU"),  # on a CPU it is interpreted, for comparisons
        (request.platform == "tpu" and request.dtype != jnp.bfloat16, computes),
        (request.length % _LANES, f"needs lengths that are multiples of {_LANES}, but one is {request.length}"),
    ]
    obstacles = [
        (request.dropout, "has no dropout, but config.model.attention_probs_dropout_prob is not 0"),
        (request.split, "computes whole sequences, but config.mesh.sequence is not 1"),
        *{"cudnn": cudnn, "splash": splash}[attention_impl],
    ]
    return next((why for there, why in obstacles if there), None)


def platform(device: Any = None) -> str:
    """`Request.platform` of a device (of those here, or one described), or of those of the mesh in force."""
    mesh = jax.sharding.get_abstract_mesh()
    if device is None:
        device = jax.devices()[0] if mesh.empty else mesh.abstract_device
    if device.platform != "gpu":
        return device.platform
    capability = str(getattr(jax.local_devices(backend="gpu")[0], "compute_capability", ""))
    major = capability.partition(".")[0]
    return "cuda" if major.isdigit() and int(major) >= 8 else "gpu"  # AMD's reads gfx942


def kernel(attention_impl: str, platform: str, window: int = 0) -> Callable[..., jax.Array]:
    """(query, key, value, mask) → softmax(query·key / √head_size)·value by "cudnn" or "splash".

    query, key, value: [batch, length, heads, head_size]; returns like query. Each device computes its rows and heads.
    Only splash takes a window, the distance to which a row sees, and that with `mask.query_segments`, so that every
    row sees something. What the backward pass needs of it has the name CONTEXT, or is of the primitives that `saves`
    knows.
    """
    function = cudnn_attention
    if attention_impl == "splash":
        function = functools.partial(splash_attention, window=window, interpret=platform == "cpu")
    if jax.sharding.get_abstract_mesh().empty:
        return function
    heads, rows = spec(("batch", "length", "heads", "small")), spec(("batch", "length"))
    # Outputs of pallas_call do not say along which axes they vary.
    return jax.shard_map(function, in_specs=(heads, heads, heads, rows), out_specs=heads, check_vma=False)


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: AttentionMask,
    *,
    window: int = 0,
    interpret: bool = False,
) -> jax.Array:
    """JAX's Pallas kernel for TPUs, on one device; arguments as of `kernel`, the length a multiple of 128.

    `interpret` runs it on any device, slowly. Where all is padding, all is seen.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads, head_size = query.shape[1:]
    key_segments, query_segments = mask.key_segments, mask.query_segments
    if query_segments is None:
        seen = key_segments != 0
        seen |= ~jnp.any(seen, axis=1, keepdims=True)  # the kernel's gradient is wrong where a row sees nothing
        key_segments, query_segments = seen, jnp.ones_like(key_segments)
    # With a window small blocks skip more of what it leaves out.
    block = next(size for size in ((256, _LANES) if window else (512, 384, 256, _LANES)) if length % size == 0)
    blocks = splash.BlockSizes(
        **dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"), block), use_fused_bwd_kernel=True
    )
    shape = (length, length)
    near = splash.LocalMask(shape, (window, window), offset=0) if window else splash.FullMask(shape)
    attend = splash.make_splash_mha(
        splash.MultiHeadMask([near] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=CONTEXT,
        interpret=interpret,
    )
    query = query * np.asarray(head_size**-0.5, query.dtype)
    heads_first = (array.swapaxes(1, 2) for array in (query, key, value))
    segments = splash.SegmentIds(query_segments.astype(jnp.int32), key_segments.astype(jnp.int32))
    return jax.vmap(attend)(*heads_first, segments).swapaxes(1, 2)


def cudnn_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: AttentionMask, *, implementation: str = "cudnn"
) -> jax.Array:
    """CuDNN's flash attention, on one device; arguments as of `kernel`.

    Without `mask.query_segments` padding must stand at the ends, as cuDNN is told lengths: with them it reads a mask
    from memory, which is slower. `implementation` "xla" computes the same on any device.
    """
    if mask.query_segments is not None:
        masked = {"mask": mask.query_segments[:, None, :, None] == mask.key_segments[:, None, None, :]}
    else:  # a row of nothing but padding reads one key instead of none, of which NaN would come
        masked = {"key_value_seq_lengths": jnp.maximum(1, jnp.sum(mask.key_segments != 0, axis=1, dtype=jnp.int32))}
    return jax.nn.dot_product_attention(query, key, value, **masked, implementation=implementation)


def saves(primitive: Any, *_: Any, **__: Any) -> bool:
    """A remat policy that keeps what cuDNN's forward pass gives, which nobody can name."""
    return primitive.name.startswith("dot_product_attention_fwd")
