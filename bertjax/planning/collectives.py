"""What a compiled program sends between devices, and along which axes of the mesh."""

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
    arrays: tuple[Array, ...]  # its results on one device
    axes: tuple[str, ...]  # mesh axes that it crosses
    devices: int  # in a group
    times: int  # that a step runs it
    source: str  # the line of the model that it comes from, as JAX names it

    @property
    def sent(self) -> int:
        """Bytes that a device sends each time, in a ring."""
        size, others = sum(array.bytes for array in self.arrays), self.devices - 1
        return {
            "all-gather": size * others // self.devices,
            "all-reduce": 2 * size * others // self.devices,
            "reduce-scatter": size * others,
            "all-to-all": size * others // self.devices,
            "collective-permute": size,
        }[self.kind]


def collectives(program: Program, mesh_shape: dict[str, int]) -> list[Collective]:
    """All collectives of a program.

    A TPU's compiler cuts one into several pieces of text, which share its channel: they count as one.

    Args:
      program: from `hlo.parse`.
      mesh_shape: the mesh's axes and sizes, outermost first; its devices are numbered along them.
    """
    found: dict[tuple[str, ...], Collective] = {}
    for name, computation in program.computations.items():
        for instruction in computation.values():
            kind = instruction.operation.removesuffix("-start")
            if kind not in KINDS or not program.runs[name]:
                continue
            one = _collective(kind, instruction, program.runs[name], mesh_shape)
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            key = (kind, one.source, channel[1] if channel else instruction.name)
            if one.devices > 1 and (key not in found or found[key].times > one.times):
                found[key] = one
    return list(found.values())


def summed(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """(times, bytes that a device sends in all) by kind and axes, `all-gather over fsdp`, in order."""
    sums: dict[str, tuple[int, int]] = {}
    for one in found:
        name = f"{one.kind} over {' and '.join(one.axes)}"
        times, sent = sums.get(name, (0, 0))
        sums[name] = times + one.times, sent + one.times * one.sent
    return dict(sorted(sums.items()))


def _collective(kind: str, instruction: Instruction, times: int, mesh_shape: dict[str, int]) -> Collective:
    results = instruction.arrays
    if instruction.operation == "all-gather-start":  # (operands, results)
        results = results[len(results) // 2 :]
    elif instruction.operation == "collective-permute-start":  # (operand, result, two counters)
        results = results[1:2]
    groups = _groups(instruction.attributes, math.prod(mesh_shape.values()))
    source = re.search(r'op_name="([^"]*)"', instruction.attributes)
    axes = _crossed(groups, mesh_shape)
    return Collective(kind, results, axes, len(groups[0]), times, source[1] if source else "")


def _crossed(groups: np.ndarray, mesh_shape: dict[str, int]) -> tuple[str, ...]:
    """The mesh axes whose coordinate differs within a group."""
    coordinates = np.array(np.unravel_index(groups, tuple(mesh_shape.values())))
    differs = (coordinates != coordinates[..., :1]).any(axis=(1, 2))
    return tuple(axis for axis, yes in zip(mesh_shape, differs, strict=True) if yes)


def _groups(attributes: str, devices: int) -> np.ndarray:
    """The groups of devices that talk to each other, [groups, devices]; a permutation's pairs count as groups."""
    listed = re.search(r"(?:source_target_pairs|replica_groups)=\{(\{.*?\})\}", attributes)
    if listed:
        return np.array([_numbers(group) for group in re.findall(r"\{([\d,]+)\}", listed[1])])
    meshed = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
    if meshed:
        return _of_mesh(meshed[1], meshed[2])
    iota = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if iota:
        shape = _numbers(iota[2])
        ids = np.arange(math.prod(shape)).reshape(shape)
        return ids.transpose(_numbers(iota[3]) if iota[3] else None).reshape(_numbers(iota[1]))
    return np.arange(devices)[None]


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _of_mesh(axes: str, along: str) -> np.ndarray:
    """Groups written as axes of a mesh of their own, `'a'=4,'b'=2` along `'a'`, or along `'a':(2)2`, a part of one."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    shape: list[int] = []
    chosen: list[int] = []
    wanted = {name: (before, size) for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", along)}
    for name, size in sizes.items():
        before, part = (int(wanted[name][0] or 1), int(wanted[name][1] or size)) if name in wanted else (1, 1)
        chosen += [len(shape) + 1] if name in wanted else []
        shape += [before, part, size // before // part]
    ids = np.arange(math.prod(shape)).reshape(shape)
    others = [axis for axis in range(len(shape)) if axis not in chosen]
    return ids.transpose(others + chosen).reshape(-1, math.prod(shape[axis] for axis in chosen))
