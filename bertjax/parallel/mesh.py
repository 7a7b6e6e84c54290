"""The device mesh: creating it, placing batches on it, and compiler options for it."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from bertjax.config.layout import MeshConfig
from bertjax.data.batch import HostBatch
from bertjax.errors import UserError
from bertjax.parallel import sharding
from bertjax.parallel.hardware import Device


def make_mesh(config: MeshConfig, devices: Sequence[Device] | None = None) -> Mesh:
    """Returns a mesh over `devices` (default: all devices of all hosts) with all axes, those unused of size 1.

    With several TPU slices, which only a network connects, the outermost axis, `data`, spans them.

    Raises:
      UserError: the axis sizes do not match the number of devices, or `data` is not a multiple of the slices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    sizes = dataclasses.asdict(config)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if count % fixed == 0:
        sizes = {name: count // fixed if size == -1 else size for name, size in sizes.items()}
    axes = " × ".join(f"{name}={size}" for name, size in sizes.items())
    if math.prod(sizes.values()) != count:
        raise UserError(f"config.mesh is {axes}, but there are {count} devices; set an axis to -1 to take the rest")
    array = _device_array(tuple(sizes.values()), devices, f"config.mesh is {axes}")
    return Mesh(array, tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def _device_array(shape: tuple[int, ...], devices: Sequence[Device], setting: str) -> np.ndarray:
    """Returns the devices as an array of `shape` whose axes follow their links; the first axis spans slices."""
    slices = len({getattr(device, "slice_index", 0) for device in devices}) if devices[0].platform == "tpu" else 1
    if shape[0] % slices:
        raise UserError(f"{setting}, but there are {slices} slices; set config.mesh.data to a multiple of {slices}")
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        within, between = (shape[0] // slices, *shape[1:]), (slices,) + (1,) * (len(shape) - 1)
        return mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    except NotImplementedError as error:
        raise UserError(f"{setting}, which does not map onto the links of these devices; use other sizes") from error


def local_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """Returns the rows of a global batch of `batch` rows that this process's devices need, ascending; int64 [rows].

    These are all rows for a single process. Processes that share a tensor or a sequence axis need the same rows. The
    rows of a process need not be contiguous, as the mesh follows the links between chips.
    """
    blocks, count = _row_blocks(mesh)
    return (blocks[:, None] * (batch // count) + np.arange(batch // count)).reshape(-1)


def put_batch(batch: HostBatch, mesh: Mesh) -> dict[str, jax.Array]:
    """Starts copying this process's rows (those of `local_rows`) to its devices and returns the global arrays."""
    blocks, count = _row_blocks(mesh)
    shardings = sharding.batch_shardings(batch, mesh)

    def put_rows(name: str, rows: np.ndarray) -> jax.Array:
        size = len(rows) // len(blocks)
        shape, parts = (size * count, *rows.shape[1:]), {}
        for device, index in _local_indices(shardings[name], shape):
            first, last, _ = index[0].indices(size * count)
            begin = np.searchsorted(blocks, first // size) * size
            parts[device] = rows[(slice(begin, begin + last - first), *index[1:])]
        arrays = jax.device_put(list(parts.values()), list(parts))
        return jax.make_array_from_single_device_arrays(shape, shardings[name], arrays)

    return {name: put_rows(name, rows) for name, rows in batch.items()}


def _row_blocks(mesh: Mesh) -> tuple[np.ndarray, int]:
    """Returns (the row blocks that this process's devices need, ascending; the number of blocks of a batch)."""
    count = sharding.batch_shards(mesh)
    blocks = jax.sharding.NamedSharding(mesh, sharding.partition_spec(("batch",)))
    return np.unique([index[0].indices(count)[0] for _, index in _local_indices(blocks, (count,))]), count


def _local_indices(where: jax.sharding.Sharding, shape: tuple[int, ...]) -> Iterator[tuple[Device, tuple[slice, ...]]]:
    """Yields the local devices with their indices into a global array of `shape`."""
    for device, index in where.addressable_devices_indices_map(shape).items():
        if index is not None:
            yield device, index


def put_array(array: np.ndarray, where: jax.sharding.Sharding) -> jax.Array:
    """Returns a global array from `array`, which every process must hold in full."""
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])


def compiler_options(mesh: Mesh) -> dict[str, bool]:
    """Returns the XLA options that differ from the defaults, for `jax.jit`.

    On CPUs, turns off scheduling for concurrency, which orders a step to run independent operations side by side. Each
    matrix product of a step uses all cores on its own; in sequence they share the caches better and need less memory.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False}


def compute_dtype(name: str, platform: str = "") -> np.dtype:
    """Returns the dtype of computation; `auto` is bfloat16 on accelerators, float32 on CPU.

    `platform` "" is the default backend.
    """
    if name == "auto":
        name = "float32" if (platform or jax.default_backend()) == "cpu" else "bfloat16"
    return jax.numpy.dtype(name)
