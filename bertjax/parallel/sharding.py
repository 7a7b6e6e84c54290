"""The map from logical axes to mesh axes, shared by models, parameters and batches.

Models name logical axes only; a new layout changes MESH_AXES. model/partitioning.py holds the logical axes of
parameters. Outside `use_mesh`, `constrain` and `all_gather` do nothing, and a model runs unchanged on one device.
"""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.config.model import ModelConfig
from bertjax.data.batch import SEQUENCE_ARRAYS
from bertjax.errors import UserError

# The mesh axes that split each logical axis; an axis without any is replicated.
MESH_AXES: dict[str, tuple[str, ...]] = {
    # activations
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    # parameters and activations, split by tensor parallelism
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    # parameters, split by FSDP or replicated
    "embed": ("fsdp",),
    "layers": (),
    "small": (),
}


def partition_spec(axes: tuple[str, ...], without: tuple[str, ...] = ()) -> PartitionSpec:
    """Returns the partition spec of logical axes, leaving out the mesh axes of `without`."""
    mesh_axes = [tuple(axis for axis in MESH_AXES[name] if axis not in without) for name in axes]
    return PartitionSpec(*(axes or None for axes in mesh_axes))


def batch_shardings(batch: Iterable[str], mesh: Mesh) -> dict[str, NamedSharding]:
    """Returns a sharding for each array of a batch, given by names."""
    rows, sequences = (
        NamedSharding(mesh, partition_spec(("batch",))),
        NamedSharding(mesh, partition_spec(("batch", "length"))),
    )
    return {name: sequences if name in SEQUENCE_ARRAYS else rows for name in batch}


def batch_shards(mesh: Mesh) -> int:
    """Returns the number of shards of the rows of a batch."""
    return math.prod(mesh.shape[axis] for axis in MESH_AXES["batch"])


def use_mesh(mesh: Mesh) -> AbstractContextManager[object]:
    """Sets the mesh of `constrain` and `all_gather` while a function is traced."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains `x` to the sharding of its logical axes; None is replicated."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(tuple(axis or "small" for axis in axes)))


def all_gather(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Gathers a parameter with these logical axes over fsdp for use; its gradient is reduce-scattered."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    stored, used = partition_spec(axes), partition_spec(axes, without=("fsdp",))

    @jax.custom_vjp
    def gather(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, used)

    gather.defvjp(
        lambda x: (gather(x), None),
        lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, stored),),
    )
    return gather(x)


def check_model(model: ModelConfig, mesh: Mesh) -> None:
    """Checks that the mesh axes divide the axes of the model.

    Raises:
      UserError: an axis is not divisible; names the setting and the mesh axis.
    """
    check_divides("heads", model.num_attention_heads, mesh, "config.model.num_attention_heads")
    check_divides("mlp", model.intermediate_size, mesh, "config.model.intermediate_size")
    check_divides("embed", model.hidden_size, mesh, "config.model.hidden_size")
    check_divides("embed", model.embedding_size, mesh, "config.model.embedding_size")  # 0 (none) is divisible
    check_divides("vocab", model.padded_vocab_size, mesh, "config.model.vocab_size, padded,")


def check_divides(axis: str, size: int, mesh: Mesh, setting: str, accumulation: int = 1) -> None:
    """Raises UserError unless the devices along a logical axis share `size` evenly in each microbatch."""
    sizes = {f"mesh.{name}": mesh.shape[name] for name in MESH_AXES[axis]} | {"layout.accumulation": accumulation}
    parts = math.prod(sizes.values())
    if size % parts:
        shared = " × ".join(name for name, parts in sizes.items() if parts > 1)
        raise UserError(f"{setting} is {size}, not a multiple of {parts} ({shared}); change one of them")
