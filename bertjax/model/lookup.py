"""Looking words up in a table whose gradient every device first adds up by itself.

Left to itself XLA sends the ids and gradients of all rows to every device that stores a part of the table. That grows
with the batch; the sums, one row a word, do not.
"""

import functools
import math

import jax
import jax.numpy as jnp

from bertjax.parallel.sharding import MESH_AXES, spec


@jax.custom_vjp
def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of `table` [vocab, hidden] at `ids` [batch, length]: [batch, length, hidden].

    The gradient is added up in f32 and has the table's dtype.
    """
    return jnp.take(table, ids, axis=0)


def _forward(table: jax.Array, ids: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return lookup(table, ids), (ids, jnp.empty((0, *table.shape), table.dtype))


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, None]:
    ids, like = saved
    words, dtype = like.shape[1], like.dtype
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _sums(ids, gradient, 0, words).astype(dtype), None
    split, scattered = MESH_AXES["vocab"], MESH_AXES["embed"]
    everywhere = tuple(axis for axis in MESH_AXES["batch"] + MESH_AXES["length"] if axis not in scattered)
    own = words // math.prod(mesh.shape[axis] for axis in split)

    @functools.partial(
        jax.shard_map,
        in_specs=(spec(("batch", "length")), spec(("batch", "length"))),
        out_specs=spec(("vocab", "embed")),
    )
    def summed(ids: jax.Array, gradient: jax.Array) -> jax.Array:
        sums = _sums(ids, gradient, jax.lax.axis_index(split) * own, own).astype(dtype)
        sums = jax.lax.psum_scatter(sums, scattered, scatter_dimension=1, tiled=True)
        return jax.lax.psum(sums, everywhere)

    return summed(ids, gradient), None


def _sums(ids: jax.Array, gradient: jax.Array, first: jax.Array | int, rows: int) -> jax.Array:
    """The gradients of the words first … first + rows, f32 [rows, hidden]; those of other words are left out."""
    at = ids - first
    at = jnp.where(at < 0, rows, at)  # a negative index would count from the end
    zeros = jnp.zeros((rows, gradient.shape[-1]), jnp.float32)
    return zeros.at[at].add(gradient.astype(jnp.float32), mode="drop")


lookup.defvjp(_forward, _backward)
