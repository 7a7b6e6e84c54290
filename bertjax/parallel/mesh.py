"""The mesh of devices: making it, feeding it, and how programs for it are compiled."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from bertjax.config.layout import MeshConfig
from bertjax.errors import UserError
from bertjax.parallel import sharding


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices`, else all of all hosts; it always has all axes, of size 1 where they are not used.

    Where there are several slices, which only a network joins, the outermost axis, `data`, runs between them.

    Raises:
      UserError: the axes do not take all devices, or `data` is no multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    sizes = dataclasses.asdict(config)
    given = math.prod(size for size in sizes.values() if size != -1)
    if count % given == 0:
        sizes = {name: count // given if size == -1 else size for name, size in sizes.items()}
    axes = " × ".join(f"{name}={size}" for name, size in sizes.items())
    if math.prod(sizes.values()) != count:
        raise UserError(f"config.mesh is {axes}, but there are {count} devices; -1 takes all that are left")
    array = _wired(tuple(sizes.values()), devices, f"config.mesh is {axes}")
    return Mesh(array, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def _wired(shape: tuple[int, ...], devices: Sequence[jax.Device], what: str) -> np.ndarray:
    """The devices as an array of `shape` whose axes follow their wiring; the first runs between slices."""
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    if shape[0] % slices:
        raise UserError(f"{what}, but there are {slices} slices; make mesh.data a multiple of them")
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        within, between = (shape[0] // slices, *shape[1:]), (slices,) + (1,) * (len(shape) - 1)
        return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    except NotImplementedError as error:
        raise UserError(f"{what}, which the wiring of these devices does not allow; use other sizes") from error


def local_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """Which rows of a global batch of `batch` this process's devices need, ascending; int64 [rows].

    All for a single process. Processes between which the tensor or the sequence axis runs need the same rows, and a
    mesh that follows the wiring of the chips may give a process rows that do not lie side by side.
    """
    blocks, count = _row_blocks(mesh)
    return (blocks[:, None] * (batch // count) + np.arange(batch // count)).reshape(-1)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Starts the copy of this process's rows, those of `local_rows`, to its devices and returns the global arrays."""
    blocks, count = _row_blocks(mesh)
    shardings = sharding.of_batch(batch, mesh)

    def put(name: str, rows: np.ndarray) -> jax.Array:
        size = len(rows) // len(blocks)
        shape, parts = (size * count, *rows.shape[1:]), {}
        for device, index in shardings[name].addressable_devices_indices_map(shape).items():
            first, last, _ = index[0].indices(size * count)
            begin = np.searchsorted(blocks, first // size) * size
            parts[device] = rows[(slice(begin, begin + last - first), *index[1:])]
        arrays = jax.device_put(list(parts.values()), list(parts))
        return jax.make_array_from_single_device_arrays(shape, shardings[name], arrays)

    return {name: put(name, rows) for name, rows in batch.items()}


def _row_blocks(mesh: Mesh) -> tuple[np.ndarray, int]:
    """(the blocks of rows that this process's devices need, ascending; how many blocks a batch has)."""
    count = sharding.batch_shards(mesh)
    places = jax.sharding.NamedSharding(mesh, sharding.spec(("batch",))).addressable_devices_indices_map((count,))
    return np.unique([index[0].indices(count)[0] for index in places.values()]), count


def put(array: np.ndarray, where: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has whole, as a global one."""
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])


def compiler_options(mesh: Mesh) -> dict[str, Any]:
    """What XLA is told beside its defaults, for `jax.jit`.

    On a CPU it would order a step so that independent operations run side by side. The products of a training step use
    every core by themselves; run in order, they share the caches better and need less memory at a time.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False}


def compute_dtype(name: str, platform: str = "") -> Any:
    """The dtype of the computation: `auto` is bfloat16 on accelerators, float32 on CPU; `platform` "": that here."""
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    return jax.numpy.dtype(name)
