"""A checksum an array, computed where the array lies, and the same for any sharding."""

from typing import Any

import jax
import jax.numpy as jnp

from bertjax.trees import named_leaves


@jax.jit
def checksums(tree: Any) -> dict[str, jax.Array]:
    """Path → uint32 scalar for every array of `tree`.

    The sum modulo 2^32 of each element's bits times an odd number made from its index. Integer sums do not depend
    on order, so no layout changes it; an odd factor makes any single changed element show, and a
    factor that differs by index makes exchanged elements show with a probability of 1 - 2^-32.
    """
    return {name: _checksum(leaf) for name, leaf in named_leaves(tree).items()}


def _checksum(x: jax.Array) -> jax.Array:
    index, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    return jnp.sum(_bits(x) * (_scramble(index) | 1), dtype=jnp.uint32)


def _bits(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _scramble(index: jax.Array) -> jax.Array:
    """A bijection of the 32-bit integers that looks random (the finaliser of MurmurHash3)."""
    index = (index ^ (index >> 16)) * jnp.uint32(0x85EBCA6B)
    index = (index ^ (index >> 13)) * jnp.uint32(0xC2B2AE35)
    return index ^ (index >> 16)
