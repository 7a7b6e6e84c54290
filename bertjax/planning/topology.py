"""Descriptions of devices that need not be present, for which XLA can compile.

With `libtpu` (the extra `tpu`) the TPU compiler runs on any machine, e.g. a laptop: it returns the real program with
its real memory, and the real error if that does not fit.
"""

import dataclasses
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from bertjax.errors import UserError, first_line
from bertjax.parallel.hardware import SLICES, Device, TpuSlice


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to plan for."""

    name: str
    devices: Sequence[Device]
    chip: TpuSlice | None  # None for CPU and GPU, whose limits the compiler does not report
    slices: int = 1


def describe(name: str) -> Topology:
    """Returns the devices of `v5e:16x16`, of two such slices `2*v5e:16x16`, of `cpu:8`, or the local GPUs (`gpu`).

    To be called before JAX initializes its backends.

    Raises:
      UserError: the kind or shape is unknown, or libtpu is missing.
    """
    if name == "gpu":
        try:
            return Topology("gpu", jax.devices("gpu"), None)
        except RuntimeError as error:
            raise UserError(
                "--topology=gpu: JAX finds no GPU; install the extra gpu, or plan on a machine with a GPU"
            ) from error
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+)*)", name)
    if not match or match[2] not in (*SLICES, "cpu"):
        raise UserError(
            f"--topology={name}: unknown; give {', '.join(SLICES)} with a shape, cpu:8, or gpu; "
            "v5e:2x4 is a slice of 8 chips, Google's v5litepod-8"
        )
    slices, kind, shape = int(match[1] or 1), match[2], [int(n) for n in match[3].split("x")]
    jax.config.update("jax_platforms", "cpu")  # leaves present accelerators out of the plan and free for others
    if kind == "cpu":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={math.prod(shape)}".strip()
        return Topology(name, jax.devices(), None)
    chip = SLICES[kind]
    if len(shape) != chip.dimensions:
        example = "x".join(["4"] * chip.dimensions)
        raise UserError(f"--topology={name}: {kind} has {chip.dimensions} dimensions; give e.g. {kind}:{example}")
    return Topology(name, _tpu_devices(name, kind, shape, slices), chip, slices)


def _tpu_devices(name: str, kind: str, shape: list[int], slices: int) -> Sequence[Device]:
    # libtpu would otherwise query Google Cloud's metadata server, and lock out other processes that plan.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    slice_name = f"{kind}:{'x'.join(map(str, shape))}"
    # A host has four chips unless the slice is smaller; two cores of a chip are one device.
    options = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(shape) == 1 else {}
    options |= {"chip_config_name": "megacore"} if kind == "v4" else {}
    try:
        return topologies.get_topology_desc(slice_name, platform="tpu", num_slices=slices, **options).devices
    except Exception as error:
        raise UserError(
            f"--topology={name}: not available ({first_line(error)}); install the extra (pip install -e '.[tpu]'), or "
            "choose an existing shape"
        ) from error
