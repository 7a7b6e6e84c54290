"""Collective operations of a compiled program, with the mesh axes that they cross."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from bertjax.planning.hlo import Array, Instruction, Program

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Collective:
    """One collective operation of a program."""

    kind: str
    arrays: tuple[Array, ...]  # results on one device
    axes: tuple[str, ...]  # mesh axes that its groups span
    devices: int  # per group
    times: int  # runs per step
    source: str  # JAX's name of the operation in the model

    @property
    def sent(self) -> int:
        """Bytes that a device sends per run, in a ring."""
        size, others = sum(array.bytes for array in self.arrays), self.devices - 1
        return {
            "all-gather": size * others // self.devices,
            "all-reduce": 2 * size * others // self.devices,
            "reduce-scatter": size * others,
            "all-to-all": size * others // self.devices,
            "collective-permute": size,
        }[self.kind]


def collectives(program: Program, mesh_shape: dict[str, int]) -> list[Collective]:
    """Returns all collectives of a program.

    The TPU compiler splits a collective into several instructions of one channel, which count once.

    Args:
      program: from `hlo.parse`.
      mesh_shape: axes and sizes of the mesh, outermost first; its devices are numbered in this order.
    """
    result: dict[tuple[str, ...], Collective] = {}
    for name, computation in program.computations.items():
        for instruction in computation.values():
            kind = instruction.operation.removesuffix("-start")
            if kind not in KINDS or not program.runs[name]:
                continue
            collective = _collective(kind, instruction, program.runs[name], mesh_shape)
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            key = (kind, collective.source, channel[1] if channel else instruction.name)
            if collective.devices > 1 and (key not in result or result[key].times > collective.times):
                result[key] = collective
    return list(result.values())


def totals(collectives: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """Returns (runs per step, bytes that a device sends per step) by kind and axes ("all-gather over fsdp"), sorted."""
    sums: dict[str, tuple[int, int]] = {}
    for collective in collectives:
        name = f"{collective.kind} over {' and '.join(collective.axes)}"
        times, sent = sums.get(name, (0, 0))
        sums[name] = times + collective.times, sent + collective.times * collective.sent
    return dict(sorted(sums.items()))


def _collective(kind: str, instruction: Instruction, times: int, mesh_shape: dict[str, int]) -> Collective:
    results = instruction.arrays
    if instruction.operation == "all-gather-start":  # (operands, results)
        results = results[len(results) // 2 :]
    elif instruction.operation == "collective-permute-start":  # (operand, result, two counters)
        results = results[1:2]
    groups = _groups(instruction.attributes, math.prod(mesh_shape.values()))
    source = re.search(r'op_name="([^"]*)"', instruction.attributes)
    axes = _spanned_axes(groups, mesh_shape)
    return Collective(kind, results, axes, len(groups[0]), times, source[1] if source else "")


def _spanned_axes(groups: np.ndarray, mesh_shape: dict[str, int]) -> tuple[str, ...]:
    """Returns the mesh axes whose coordinates differ within a group."""
    coordinates = np.array(np.unravel_index(groups, tuple(mesh_shape.values())))
    differs = (coordinates != coordinates[..., :1]).any(axis=(1, 2))
    return tuple(axis for axis, spanned in zip(mesh_shape, differs, strict=True) if spanned)


def _groups(attributes: str, devices: int) -> np.ndarray:
    """Returns the groups of communicating devices, [groups, devices]; the pairs of a permutation count as groups."""
    listed = re.search(r"(?:source_target_pairs|replica_groups)=\{(\{.*?\})\}", attributes)
    if listed:
        return np.array([_numbers(group) for group in re.findall(r"\{([\d,]+)\}", listed[1])])
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
    if mesh:
        return _mesh_groups(mesh[1], mesh[2])
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        shape = _numbers(iota[2])
        ids = np.arange(math.prod(shape)).reshape(shape)
        return ids.transpose(_numbers(iota[3]) if iota[3] else None).reshape(_numbers(iota[1]))
    return np.arange(devices)[None]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _mesh_groups(axes: str, along: str) -> np.ndarray:
    """Returns the groups along axes of a mesh `'a'=4,'b'=2`: along `'a'`, or along `'a':(2)2`, a part of an axis."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    shape: list[int] = []
    chosen: list[int] = []
    parts = {name: (before, size) for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", along)}
    for name, size in sizes.items():
        before, part = (int(parts[name][0] or 1), int(parts[name][1] or size)) if name in parts else (1, 1)
        chosen += [len(shape) + 1] if name in parts else []
        shape += [before, part, size // before // part]
    ids = np.arange(math.prod(shape)).reshape(shape)
    others = [axis for axis in range(len(shape)) if axis not in chosen]
    return ids.transpose(others + chosen).reshape(-1, math.prod(shape[axis] for axis in chosen))
