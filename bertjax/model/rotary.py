"""Rotary positions: queries and keys are rotated by their positions (Su et al. 2021, arXiv:2104.09864).

The product of a query and a key then depends on their positions only through the distance between them.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rotate(
    x: Float[Array, "batch length heads head_size"],
    positions: Int[Array, "#batch length"] | Int[Array, " length"],
    theta: float,
) -> Float[Array, "batch length heads head_size"]:
    """Rotates `x` by `positions`, computing in f32.

    Element i of the first half of a head and element i of the second form a pair, rotated by
    position · theta^(-2i / head_size).
    """
    half = x.shape[-1] // 2
    speeds = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = (positions[..., None].astype(jnp.float32) * speeds)[..., None, :]  # [(batch,) length, 1, half]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
