"""Checksums of arrays, computed on their devices and independent of sharding."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from bertjax.arrays.hashing import element_index, scramble
from bertjax.arrays.trees import named_leaves


def checksums(tree: PyTree) -> dict[str, int]:
    """Returns path → checksum, below 2^32, for every array of `tree`.

    The checksum is the sum modulo 2^32 of each element's bits times an odd number derived from the element's index. An
    integer sum does not depend on its order, thus not on the layout. Odd factors detect any single changed element;
    factors that differ by index detect exchanged elements with a probability of 1 - 2^-32.
    """
    return {name: int(value) for name, value in jax.device_get(_checksums(tree)).items()}


@jax.jit
def _checksums(tree: PyTree) -> dict[str, jax.Array]:
    return {name: _checksum(leaf) for name, leaf in named_leaves(tree).items()}


def _checksum(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    return jnp.sum(bits * (scramble(element_index(x.shape)) | 1), dtype=jnp.uint32)
