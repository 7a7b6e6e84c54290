"""Parser of compiled programs: instructions, and how often each computation runs.

XLA's own cost analysis counts the body of a loop once. Here a computation counts as often as its enclosing loops repeat
it. The input is the text of `jax.stages.Compiled.as_text()`; the parts read are the same on TPU, GPU and CPU.
"""

import functools
import math
import re
from dataclasses import dataclass

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_CALLED = re.compile(r"\b(?:calls|body|condition|to_apply|branch_computations)=(?:\{([^}]*)\}|([^\s,]+))")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8, "f8e4m3fn": 1, "f8e5m2": 1}


@dataclass(frozen=True)
class Array:
    """An array on one device."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool  # in on-chip memory, not in HBM

    @property
    def bytes(self) -> int:
        """Bytes without padding."""
        return _BYTES.get(self.dtype, 0) * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    operation: str
    arrays: tuple[Array, ...]  # of the result; several for a tuple
    operands: tuple[str, ...]  # names
    arguments: str  # text in the parentheses
    attributes: str  # text after the parentheses
    root: bool

    @property
    def called(self) -> list[str]:
        """Names of the called computations."""
        lists = (several or single for several, single in _CALLED.findall(self.attributes))
        return [name.strip().removeprefix("%") for names in lists for name in names.split(",")]


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Program:
    """Computations by name."""

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def trips(self) -> dict[str, int | None]:
        """Trip count of each loop by name; None if it could not be read."""
        return {
            instruction.name: _trips(self.computations, computation, instruction)
            for computation in self.computations.values()
            for instruction in computation.values()
            if instruction.operation == "while"
        }

    @functools.cached_property
    def runs(self) -> dict[str, int]:
        """Runs of each computation per step, including those within fusions; loops of unknown trip count run once."""
        times = dict.fromkeys(self.computations, 0)
        pending = [(self.entry, 1)]
        while pending:
            name, count = pending.pop()
            times[name] += count
            for instruction in self.computations[name].values():
                trips = self.trips.get(instruction.name)
                runs = count if trips is None else count * trips
                pending += [(called, runs) for called in instruction.called if called in self.computations]
        return times


def _trips(computations: dict[str, Computation], caller: Computation, loop: Instruction) -> int | None:
    """Returns the trip count of a loop in `caller`: XLA's, or that of `for (i = start; i < end; i += step)` (scans)."""
    annotated = _TRIPS.search(loop.attributes)
    if annotated:
        return int(annotated[1])
    names = dict(re.findall(r"(condition|body)=%?([\w.\-]+)", loop.attributes))
    condition, body = computations[names["condition"]], computations[names["body"]]
    initial, carried = caller[loop.operands[0]].operands, root(body).operands

    def constant(computation: Computation, name: str) -> int | None:
        """Returns the value of an integer that is a literal, or passed into the loop as one and never changed."""
        instruction = computation[name]
        if instruction.operation == "constant":
            return int(instruction.arguments) if re.fullmatch(r"-?\d+", instruction.arguments) else None
        if instruction.operation in ("copy", "bitcast"):
            return constant(computation, instruction.operands[0])
        if computation is caller or instruction.operation != "get-tuple-element":
            return None
        index = _index(instruction)
        updated = body[carried[index]]
        passed_in = computation[instruction.operands[0]].operation == "parameter"
        unchanged = updated.operation == "get-tuple-element" and _index(updated) == index
        return constant(caller, initial[index]) if passed_in and unchanged else None

    test = root(condition)
    if test.operation != "compare" or "direction=LT" not in test.attributes:
        return None
    counter, limit = test.operands
    if condition[counter].operation != "get-tuple-element":
        return None
    index = _index(condition[counter])
    updated = body[carried[index]]
    steps = [constant(body, name) for name in updated.operands] if updated.operation == "add" else []
    step = next(filter(None, steps), None)
    start, end = constant(caller, initial[index]), constant(condition, limit)
    return None if start is None or end is None or step is None else max(0, math.ceil((end - start) / step))


def parse(text: str) -> Program:
    """Parses the text of a program."""
    computations: dict[str, Computation] = {}
    entry = current = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = header[2]
            computations[current] = {}
            entry = current if header[1] else entry
            continue
        match = _INSTRUCTION.match(line)
        if match and current:
            instruction = _instruction(*match.groups())
            computations[current][instruction.name] = instruction
    return Program(computations, entry)


def _instruction(root_mark: str | None, name: str, shape: str, operation: str, rest: str) -> Instruction:
    depth, end = 1, 0
    while end < len(rest) and depth:
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    arguments, attributes = rest[: end - 1], rest[end:]
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(name, operation, arrays(shape), operands, arguments, attributes, bool(root_mark))


def arrays(shape: str) -> tuple[Array, ...]:
    """Parses the arrays of a shape, e.g. `(bf16[8,128]{1,0:T(8,128)S(1)}, s32[])`."""
    return tuple(
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size), on_chip=bool(re.search(r"S\(\d", layout)))
        for dtype, sizes, layout in _ARRAY.findall(shape)
    )


def root(computation: Computation) -> Instruction:
    """Returns the instruction whose result is that of the computation."""
    return next(instruction for instruction in computation.values() if instruction.root)


def _index(instruction: Instruction) -> int:
    return int(re.findall(r"index=(\d+)", instruction.attributes)[0])
