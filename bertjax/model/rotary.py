"""Rotary positions: queries and keys are turned as they stand (Su et al. 2021, arXiv:2104.09864).

The product of a query and a key then depends on how far they are apart, and nothing else of their places.
"""

import jax
import jax.numpy as jnp


def rotate(x: jax.Array, positions: jax.Array, theta: float) -> jax.Array:
    """Turns x [batch, rows, heads, head_size] as its rows stand at `positions`, [batch, rows] or [rows]; like x.

    Element i of a head's first half and of its second are a pair, turned by position · theta^(-2i / head_size).
    Computed in f32.
    """
    half = x.shape[-1] // 2
    speeds = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = (positions[..., None].astype(jnp.float32) * speeds)[..., None, :]  # [(batch,) rows, 1, half]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
