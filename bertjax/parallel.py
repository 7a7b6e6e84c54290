"""The mesh of devices: making it, feeding it, and what is known of them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from bertjax import sharding
from bertjax.config import MeshConfig
from bertjax.errors import UserError


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
    types = (AxisType.Auto,) * len(sizes)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices)
    if sizes["data"] % slices:
        raise UserError(f"config.mesh is {axes}, but there are {slices} slices; make mesh.data a multiple of them")
    within = (sizes["data"] // slices, *list(sizes.values())[1:])
    between = (slices,) + (1,) * (len(sizes) - 1)
    array = mesh_utils.create_hybrid_device_mesh(within, between, devices)
    return Mesh(array, tuple(sizes), axis_types=types)


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Starts the copy of this process's rows to its devices and returns the global arrays."""
    shardings = sharding.of_batch(batch, mesh)
    return {name: jax.make_array_from_process_local_data(shardings[name], rows) for name, rows in batch.items()}


# Dense bf16 peak, FLOP/s a chip, from the makers' data sheets; MFU is reported only for these.
_PEAK_FLOPS = {
    "TPU v3": 123e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops() -> float | None:
    """Peak bf16 FLOP/s of all devices together, None where the device kind's is not known."""
    peak = _PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return peak * jax.device_count() if peak else None


def compiler_options(mesh: Mesh) -> dict[str, Any]:
    """What XLA is told beside its defaults, for `jax.jit`.

    On a CPU it would order a step so that independent operations run side by side. The products of a training step use
    every core by themselves; run in order, they share the caches better and need less memory at a time.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"xla_cpu_enable_concurrency_optimized_scheduler": False}


def compute_dtype(name: str) -> Any:
    """The dtype of the computation: `auto` is bfloat16 on accelerators and float32 on CPU."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jax.numpy.dtype(name)
