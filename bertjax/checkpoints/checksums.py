"""A checksum an array, computed where the array lies, and the same for any sharding."""

from typing import Any

import jax
import jax.numpy as jnp

from bertjax.arrays.hashing import element_index, scramble
from bertjax.arrays.trees import named_leaves


def checksums(tree: Any) -> dict[str, int]:
    """Path → checksum, below 2^32, for every array of `tree`.

    The sum modulo 2^32 of each element's bits times an odd number made from its index. Integer sums do not depend
    on order, so no layout changes it; an odd factor makes any single changed element show, and a
    factor that differs by index makes exchanged elements show with a probability of 1 - 2^-32.
    """
    return {name: int(value) for name, value in jax.device_get(_checksums(tree)).items()}


@jax.jit
def _checksums(tree: Any) -> dict[str, jax.Array]:
    return {name: _checksum(leaf) for name, leaf in named_leaves(tree).items()}


def _checksum(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    return jnp.sum(bits * (scramble(element_index(x.shape)) | 1), dtype=jnp.uint32)
