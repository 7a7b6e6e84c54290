"""Integers that look random, made of an element's place in an array, so that no sharding changes them."""

import jax
import jax.numpy as jnp


def element_index(shape: tuple[int, ...]) -> jax.Array:
    """Each element's index in row-major order modulo 2^32, uint32 of `shape`."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return index


def scramble(index: jax.Array) -> jax.Array:
    """A bijection of the 32-bit integers that looks random (the finaliser of MurmurHash3)."""
    index = (index ^ (index >> 16)) * jnp.uint32(0x85EBCA6B)
    index = (index ^ (index >> 13)) * jnp.uint32(0xC2B2AE35)
    return index ^ (index >> 16)
