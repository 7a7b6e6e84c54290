"""From logical axes to mesh axes: a few rules that models, parameters and batches share.

The logical axes of parameters are in model/partitioning.py.

A new layout is a change of MESH_AXES; the model names logical axes only. Without a mesh in force (see `use_mesh`)
`constrain` and `all_gather` move nothing, so that a model runs unchanged on one device.
"""

import math
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bertjax.config.model import ModelConfig
from bertjax.data.batch import SEQUENCE_ARRAYS
from bertjax.errors import UserError

# Where each logical axis lies; of one that lies nowhere every device holds all.
MESH_AXES: dict[str, tuple[str, ...]] = {
    # of activations
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    # of parameters and activations: what tensor parallelism splits
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    # of parameters: what FSDP splits, and what nobody does
    "embed": ("fsdp",),
    "layers": (),
    "small": (),
}


def spec(axes: tuple[str, ...], without: tuple[str, ...] = ()) -> PartitionSpec:
    """Logical axes as mesh axes, those of `without` left out."""
    laid = [tuple(axis for axis in MESH_AXES[name] if axis not in without) for name in axes]
    return PartitionSpec(*(axes or None for axes in laid))


def of_batch(batch: Any, mesh: Mesh) -> dict[str, NamedSharding]:
    """A sharding for each array of a batch."""
    rows, sequences = NamedSharding(mesh, spec(("batch",))), NamedSharding(mesh, spec(("batch", "length")))
    return {name: sequences if name in SEQUENCE_ARRAYS else rows for name in batch}


def batch_shards(mesh: Mesh) -> int:
    """The number of parts that the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in MESH_AXES["batch"])


def use_mesh(mesh: Mesh) -> AbstractContextManager[Any]:
    """Puts a mesh in force while a function is traced."""
    return jax.sharding.use_abstract_mesh(mesh.abstract_mesh)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x` laid out as its logical axes say; of an axis None every device holds all."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(tuple(axis or "small" for axis in axes)))


def all_gather(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """A parameter with these logical axes, gathered over fsdp for use; its gradient goes back scattered."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    stored, used = spec(axes), spec(axes, without=("fsdp",))

    @jax.custom_vjp
    def gather(x: jax.Array) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, used)

    gather.defvjp(
        lambda x: (gather(x), None),
        lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, stored),),
    )
    return gather(x)


def check_model(model: ModelConfig, mesh: Mesh) -> None:
    """Refuses a mesh whose axes do not divide the model's.

    Raises:
      UserError: names the setting and the mesh axis.
    """
    check_divides("heads", model.num_attention_heads, mesh, "config.model.num_attention_heads")
    check_divides("mlp", model.intermediate_size, mesh, "config.model.intermediate_size")
    check_divides("embed", model.hidden_size, mesh, "config.model.hidden_size")
    check_divides("embed", model.embedding_size, mesh, "config.model.embedding_size")  # 0, where there is none, fits
    check_divides("vocab", model.padded_vocab_size, mesh, "config.model.vocab_size, padded,")


def check_divides(axis: str, size: int, mesh: Mesh, what: str, accumulation: int = 1) -> None:
    """Raises UserError where the devices along a logical axis cannot share `size` evenly, in each part of a step."""
    sizes = {f"mesh.{name}": mesh.shape[name] for name in MESH_AXES[axis]} | {"layout.accumulation": accumulation}
    parts = math.prod(sizes.values())
    if size % parts:
        shared = " × ".join(name for name, parts in sizes.items() if parts > 1)
        raise UserError(f"{what} is {size}, not a multiple of {parts} ({shared}); change one of them")
