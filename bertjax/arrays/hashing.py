"""Hashes of the index of each element of an array, which do not depend on its sharding."""

import jax
import jax.numpy as jnp


def element_index(shape: tuple[int, ...]) -> jax.Array:
    """Returns the index of each element in row-major order modulo 2^32, uint32 of `shape`."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return index


def scramble(index: jax.Array) -> jax.Array:
    """Maps the 32-bit integers to one another pseudorandomly and bijectively (the finalizer of MurmurHash3)."""
    index = (index ^ (index >> 16)) * jnp.uint32(0x85EBCA6B)
    index = (index ^ (index >> 13)) * jnp.uint32(0xC2B2AE35)
    return index ^ (index >> 16)
