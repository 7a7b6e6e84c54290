"""Attention by fused kernels, which never write the scores to memory, and the choice between them.

A kernel is a function from queries, keys and values to contexts that agrees with `plain_attention` but for rounding.
None has dropout on the probabilities. Segments say who sees whom: a key's is 0 where it is padding. Without
`query_segments` every row sees all keys but padding; with them a row sees the keys of its own segment, so that several
sequences can lie in one row of the batch. With a window a row sees only what stands at most so far from it.
"""

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


@dataclass(frozen=True)
class Request:
    """What is asked of attention, as far as the choice of a kernel depends on it."""

    platform: str  # cpu, tpu, cuda (an NVIDIA GPU of compute capability 8.0 or higher), or gpu (any other)
    dtype: Any
    length: int
    head_size: int
    dropout: bool  # on the probabilities
    split: bool  # whether the mesh splits sequences
    window: int = 0  # how far a row sees to each side; 0: everywhere


def choose(asked: str, request: Request) -> str:
    """The kernel to use, "xla" (the plain path), "cudnn" or "splash", where the config asks for `asked` or "auto".

    Raises:
      UserError: the kernel that is asked for cannot do it.
    """
    if asked == "auto":
        kernel = {"tpu": "splash", "cuda": "cudnn"}.get(request.platform, "xla")
        worth = kernel != "splash" or request.length >= _SPLASH_FROM
        return kernel if worth and _obstacle(kernel, request) is None else "xla"
    obstacle = _obstacle(asked, request)
    if obstacle:
        raise UserError(f"config.layout.attention_impl is {asked!r}, which {obstacle}; 'auto' and 'xla' always work")
    return asked


def _obstacle(kernel: str, request: Request) -> str | None:
    """Why a kernel cannot be used."""
    if kernel == "xla":
        return None
    if request.dropout:
        return "has no dropout, but config.model.attention_probs_dropout_prob is not 0"
    if request.split:
        return "computes whole sequences, but config.mesh.sequence is not 1"
    return _cudnn_obstacle(request) if kernel == "cudnn" else _splash_obstacle(request)


def _cudnn_obstacle(request: Request) -> str | None:
    if request.window:
        return "has no window to both sides, but config.model.local_attention is not 0"
    if request.platform != "cuda":
        return "needs an NVIDIA GPU of compute capability 8.0 or higher"
    if request.dtype not in (jnp.bfloat16, jnp.float16):
        return f"computes in bfloat16, but config.dtype is {jnp.dtype(request.dtype).name}"
    if request.head_size % 8 or request.head_size > 128:
        return f"needs heads whose size is a multiple of 8 up to 128, but it is {request.head_size}"
    return None


def _splash_obstacle(request: Request) -> str | None:
    if request.platform not in ("tpu", "cpu"):  # on a CPU it is interpreted, for comparisons
        return "needs a TPU"
    if request.platform == "tpu" and request.dtype != jnp.bfloat16:
        return f"computes in bfloat16, but config.dtype is {jnp.dtype(request.dtype).name}"
    if request.length % _LANES:
        return f"needs lengths that are multiples of {_LANES}, but one is {request.length}"
    return None


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


def run(
    kernel: str,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_segments: jax.Array,
    query_segments: jax.Array | None = None,
    window: int = 0,
) -> jax.Array:
    """softmax(query·key / √head_size)·value by "cudnn" or "splash", each device on its rows and heads.

    query, key, value: [batch, length, heads, head_size]; segments: int [batch, length]; only splash takes a window,
    and that with `query_segments`, so that every row sees something. Returns like query. What the
    backward pass needs of it has the name CONTEXT, or is of the primitives that `saves` knows.
    """
    if kernel == "splash":
        interpret = platform() == "cpu"

        def function(*operands: jax.Array) -> jax.Array:
            return splash_attention(*operands, window=window, interpret=interpret)
    else:
        function = cudnn_attention
    operands = [query, key, value, key_segments] + ([] if query_segments is None else [query_segments])
    if jax.sharding.get_abstract_mesh().empty:
        return function(*operands)
    heads, rows = spec(("batch", "length", "heads", "small")), spec(("batch", "length"))
    specs = (heads,) * 3 + (rows,) * (len(operands) - 3)
    # Outputs of pallas_call do not say along which axes they vary.
    return jax.shard_map(function, in_specs=specs, out_specs=heads, check_vma=False)(*operands)


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_segments: jax.Array,
    query_segments: jax.Array | None = None,
    *,
    window: int = 0,
    interpret: bool = False,
) -> jax.Array:
    """JAX's Pallas kernel for TPUs, on one device; arguments as of `run`, the length a multiple of 128.

    `interpret` runs it on any device, slowly. Where all is padding, all is seen.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    length, heads, head_size = query.shape[1:]
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
    mask = splash.LocalMask(shape, (window, window), offset=0) if window else splash.FullMask(shape)
    attend = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads),
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
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_segments: jax.Array,
    query_segments: jax.Array | None = None,
    *,
    implementation: str = "cudnn",
) -> jax.Array:
    """CuDNN's flash attention, on one device; arguments as of `run`.

    Without `query_segments` padding must stand at the ends, as cuDNN is told lengths: with them it reads a mask from
    memory, which is slower. `implementation` "xla" computes the same on any device.
    """
    if query_segments is not None:
        masked = {"mask": query_segments[:, None, :, None] == key_segments[:, None, None, :]}
    else:  # a row of nothing but padding reads one key instead of none, of which NaN would come
        masked = {"key_value_seq_lengths": jnp.maximum(1, jnp.sum(key_segments != 0, axis=1, dtype=jnp.int32))}
    return jax.nn.dot_product_attention(query, key, value, **masked, implementation=implementation)


def saves(primitive: Any, *_: Any, **__: Any) -> bool:
    """A remat policy that keeps what cuDNN's forward pass gives, which nobody can name."""
    return primitive.name.startswith("dot_product_attention_fwd")
