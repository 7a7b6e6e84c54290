"""Data sheets of known accelerators: peak FLOP/s, and memory and bandwidths of TPU slices for planning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Device(Protocol):
    """A `jax.Device`, which has no static type."""

    device_kind: str
    platform: str


@dataclass(frozen=True)
class TpuSlice:
    """Memory and peak bandwidths of a chip in a TPU slice."""

    dimensions: int  # of the slice's torus
    hbm_bytes: int  # available to a program
    hbm_bytes_per_second: float
    ring_bytes_per_second: float  # sent in a ring along one dimension of the torus, both directions together
    network_bytes_per_second: float  # sent to other slices


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator."""

    device_kinds: tuple[str, ...]  # `device_kind` of its JAX devices
    peak_flops: float  # dense bf16, FLOP/s per device
    slice: TpuSlice | None = None  # None: planning needs the device itself


# Peaks: the vendors' data sheets. A chip of TPU v3 (123 TFLOP/s) is two devices; chips of later versions are one.
# Bandwidths: cloud.google.com/tpu/docs and "How to Scale Your Model" (jax-ml.github.io/scaling-book), which states the
# bandwidth of a link per direction. Memory: the part of the chip's 32, 16, 95 and 32 GiB that the compiler leaves.
CHIPS = {
    "v3": Chip(("TPU v3",), 61.5e12),
    "v4": Chip(("TPU v4",), 275e12, TpuSlice(3, int(30.75 * 2**30), 1.2e12, 2 * 4.5e10, 6.25e9)),
    "v5e": Chip(("TPU v5 lite",), 197e12, TpuSlice(2, int(15.75 * 2**30), 8.1e11, 2 * 4.5e10, 3.125e9)),
    "v5p": Chip(("TPU v5", "TPU v5p"), 459e12, TpuSlice(3, int(95.74 * 2**30), 2.8e12, 2 * 9e10, 6.25e9)),
    "v6e": Chip(("TPU v6 lite",), 918e12, TpuSlice(2, int(31.25 * 2**30), 1.6e12, 2 * 9e10, 12.5e9)),
    "A100": Chip(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"), 312e12),
    "H100": Chip(("NVIDIA H100 80GB HBM3",), 989e12),
    "H200": Chip(("NVIDIA H200",), 989e12),
}
# TPU slices that can be planned for without having them, by the name of their chip.
SLICES = {name: chip.slice for name, chip in CHIPS.items() if chip.slice}


def peak_flops(devices: Sequence[Device]) -> float | None:
    """Returns the peak bf16 FLOP/s of all `devices` together, as needed for MFU; None if their kind is unknown."""
    kind = devices[0].device_kind
    return next((chip.peak_flops * len(devices) for chip in CHIPS.values() if kind in chip.device_kinds), None)
