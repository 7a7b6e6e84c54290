"""Devices that are not here: descriptions of accelerators for which XLA can compile without having them.

With `libtpu` installed (the extra `tpu`) the real TPU compiler runs on a laptop: it gives the real program, its real
memory, and a real error where that does not fit.
"""

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from bertjax.errors import UserError, first_line
from bertjax.parallel.hardware import SLICES, TpuSlice


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to plan for."""

    name: str
    devices: Sequence[Any]
    chip: TpuSlice | None  # None on a CPU or GPU, of which the compiler does not tell the limits
    slices: int = 1


def describe(name: str) -> Topology:
    """The devices of `v5e:16x16`, of two such slices `2*v5e:16x16`, of `cpu:8`, or those here: `gpu`.

    To be called before JAX has devices.

    Raises:
      UserError: an unknown kind or shape, or libtpu is missing.
    """
    if name == "gpu":
        try:
            return Topology("gpu", jax.devices("gpu"), None)
        except RuntimeError as error:
            raise UserError(
                "--topology=gpu needs a GPU here, and JAX finds none; is the extra gpu installed?"
            ) from error
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+)*)", name)
    if not match or match[2] not in (*SLICES, "cpu"):
        raise UserError(
            f"--topology={name} is not known; give {', '.join(SLICES)} with a shape (v5e:4x4), cpu:8, or gpu"
        )
    slices, kind, shape = int(match[1] or 1), match[2], [int(n) for n in match[3].split("x")]
    jax.config.update("jax_platforms", "cpu")  # what else is here must neither be planned on nor be taken
    if kind == "cpu":
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={math.prod(shape)}".strip()
        return Topology(name, jax.devices(), None)
    chip = SLICES[kind]
    if len(shape) != chip.dimensions:
        example = "x".join(["4"] * chip.dimensions)
        raise UserError(f"--topology={name}: a {kind} slice has {chip.dimensions} dimensions, e.g. {kind}:{example}")
    return Topology(name, _tpu_devices(name, kind, shape, slices), chip, slices)


def _tpu_devices(name: str, kind: str, shape: list[int], slices: int) -> Sequence[Any]:
    # libtpu would otherwise ask Google Cloud's metadata server who it is, and keep others from planning as well.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    slice_name = f"{kind}:{'x'.join(map(str, shape))}"
    # A host has four chips, unless the slice is smaller; where a chip has two cores, they are one device.
    options = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(shape) == 1 else {}
    options |= {"chip_config_name": "megacore"} if kind == "v4" else {}
    try:
        return topologies.get_topology_desc(slice_name, platform="tpu", num_slices=slices, **options).devices
    except Exception as error:
        raise UserError(
            f"--topology={name} cannot be described ({first_line(error)}); is the extra installed (pip install "
            "-e '.[tpu]'), and does this shape exist?"
        ) from error
