"""Embedding look-up in which each device sums the gradients of its own tokens first.

By default XLA sends the ids and gradients of all rows to every device that stores a part of the table. That traffic
grows with the batch; that of the sums, one vector per word, does not.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Integer

from bertjax.parallel.sharding import MESH_AXES, partition_spec


@jax.custom_vjp
def lookup(
    table: Float[Array, "vocab embedding"], ids: Int[Array, "batch length"]
) -> Float[Array, "batch length embedding"]:
    """Returns the embeddings of `ids`.

    The gradient is summed in f32 and returned in the table's dtype.
    """
    return jnp.take(table, ids, axis=0)


def _forward(
    table: Float[Array, "vocab embedding"], ids: Int[Array, "batch length"]
) -> tuple[
    Float[Array, "batch length embedding"], tuple[Int[Array, "batch length"], Float[Array, "0 vocab embedding"]]
]:
    return lookup(table, ids), (ids, jnp.empty((0, *table.shape), table.dtype))


def _backward(
    residuals: tuple[Int[Array, "batch length"], Float[Array, "0 vocab embedding"]],
    gradient: Float[Array, "batch length embedding"],
) -> tuple[Float[Array, "vocab embedding"], None]:
    ids, empty_table = residuals
    vocab, dtype = empty_table.shape[1], empty_table.dtype
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _sums(ids, gradient, 0, vocab).astype(dtype), None
    vocab_axes, scatter_axes = MESH_AXES["vocab"], MESH_AXES["embed"]
    sum_axes = tuple(axis for axis in MESH_AXES["batch"] + MESH_AXES["length"] if axis not in scatter_axes)
    local_vocab = vocab // math.prod(mesh.shape[axis] for axis in vocab_axes)

    @functools.partial(
        jax.shard_map,
        in_specs=(partition_spec(("batch", "length")), partition_spec(("batch", "length"))),
        out_specs=partition_spec(("vocab", "embed")),
    )
    def sharded_sums(
        ids: Int[Array, "batch length"], gradient: Float[Array, "batch length embedding"]
    ) -> Float[Array, "local_vocab local_embedding"]:
        sums = _sums(ids, gradient, jax.lax.axis_index(vocab_axes) * local_vocab, local_vocab).astype(dtype)
        sums = jax.lax.psum_scatter(sums, scatter_axes, scatter_dimension=1, tiled=True)
        return jax.lax.psum(sums, sum_axes)

    return sharded_sums(ids, gradient), None


def _sums(
    ids: Int[Array, "batch length"],
    gradient: Float[Array, "batch length embedding"],
    first: Integer[Array, ""] | int,
    count: int,
) -> Float32[Array, "{count} embedding"]:
    """Returns the sums of the gradients of words first … first + count; other words are ignored."""
    indices = ids - first
    indices = jnp.where(indices < 0, count, indices)  # a negative index would count from the end
    zeros = jnp.zeros((count, gradient.shape[-1]), jnp.float32)
    return zeros.at[indices].add(gradient.astype(jnp.float32), mode="drop")


lookup.defvjp(_forward, _backward)
