"""The mesh of devices, and where parameters and batches lie on it."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from bertjax.config import MeshConfig
from bertjax.errors import UserError


def make_mesh(config: MeshConfig) -> Mesh:
    """The mesh over all devices of all hosts; the axis `data` splits the batch, parameters are replicated."""
    devices = jax.device_count()
    data = devices if config.data == -1 else config.data
    if data != devices:
        raise UserError(f"config.mesh.data is {data}, but there are {devices} devices; use {devices} or -1")
    return jax.make_mesh((data,), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """The first dimension, a batch's rows, is split over the data axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch(mesh: Mesh, batch: int, where: str) -> None:
    """Raises UserError where the devices cannot share `batch` rows evenly."""
    if batch % mesh.shape["data"]:
        raise UserError(
            f"{where} is {batch}, not a multiple of the {mesh.shape['data']} devices that share it; change it"
        )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Starts the copy of this process's rows to its devices and returns the global arrays."""
    sharding = by_row(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


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
