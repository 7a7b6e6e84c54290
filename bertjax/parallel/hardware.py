"""The accelerators that bertjax knows: their peaks, and what a plan needs of those that it can plan for."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax


@dataclass(frozen=True)
class TpuSlice:
    """What a chip of a TPU slice has, and how fast it moves it at its best."""

    dimensions: int  # of a slice's torus
    hbm_bytes: int  # that a program can have
    hbm_bytes_per_second: float
    ring_bytes_per_second: float  # sent by a ring along one dimension of the torus, both ways round
    network_bytes_per_second: float  # sent to other slices


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator."""

    device_kinds: tuple[str, ...]  # as JAX names its devices
    peak_flops: float  # dense bf16, FLOP/s per device
    slice: TpuSlice | None = None  # None where nothing can be planned without the device


# Peaks: the makers' data sheets. A chip of TPU v3, of 123 TFLOP/s, is two devices; those of later ones are one.
# Bandwidths: cloud.google.com/tpu/docs and "How to Scale Your Model" (jax-ml.github.io/scaling-book), which gives what
# a link reaches each way. Memory: what the compiler leaves of the chip's 32, 16, 95 and 32 GiB.
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
# The TPU slices that can be planned for, by the name of their chip.
SLICES = {name: chip.slice for name, chip in CHIPS.items() if chip.slice}


def peak_flops(devices: Sequence[jax.Device]) -> float | None:
    """Peak bf16 FLOP/s of these devices together, None where their kind's is not known; MFU needs it."""
    kind = devices[0].device_kind
    return next((chip.peak_flops * len(devices) for chip in CHIPS.values() if kind in chip.device_kinds), None)
