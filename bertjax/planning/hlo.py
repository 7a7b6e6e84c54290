"""A compiled program, read from its text: its instructions, and how often each computation runs.

XLA's own cost analysis counts a loop's body once. Here a computation counts as often as the loops around it repeat.
The text is that of `jax.stages.Compiled.as_text()`; what is read of it is the same on TPU, GPU and CPU.
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
    """An array of one device."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool  # in the fast memory beside the compute units, not in HBM

    @property
    def bytes(self) -> int:
        """Without what a layout pads."""
        return _BYTES.get(self.dtype, 0) * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    operation: str
    arrays: tuple[Array, ...]  # of the result; several where it is a tuple
    operands: tuple[str, ...]  # names
    arguments: str  # what stands between the brackets
    attributes: str  # what stands behind them
    root: bool

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls."""
        names = (name for several, one in _CALLED.findall(self.attributes) for name in (several or one).split(","))
        return [name.strip().removeprefix("%") for name in names]


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Program:
    """Computations by name."""

    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def trips(self) -> dict[str, int | None]:
        """How often each loop runs its body each time that it is come to; None where that could not be read."""
        return {
            instruction.name: _trips(self.computations, computation, instruction)
            for computation in self.computations.values()
            for instruction in computation.values()
            if instruction.operation == "while"
        }

    @functools.cached_property
    def runs(self) -> dict[str, int]:
        """How often a step runs each computation, those within fusions as often as these; unread loops count once."""
        times = dict.fromkeys(self.computations, 0)
        waiting = [(self.entry, 1)]
        while waiting:
            name, count = waiting.pop()
            times[name] += count
            for instruction in self.computations[name].values():
                trips = self.trips.get(instruction.name)
                again = count if trips is None else count * trips
                waiting += [(other, again) for other in instruction.called if other in self.computations]
        return times


def _trips(computations: dict[str, Computation], around: Computation, loop: Instruction) -> int | None:
    """Trips of a loop in `around`: as XLA says, else those of `for (i = start; i < end; i += step)`, a scan's form."""
    known = _TRIPS.search(loop.attributes)
    if known:
        return int(known[1])
    found = dict(re.findall(r"(condition|body)=%?([\w.\-]+)", loop.attributes))
    condition, body = computations[found["condition"]], computations[found["body"]]
    started, carried = around[loop.operands[0]].operands, root(body).operands

    def constant(computation: Computation, name: str) -> int | None:
        """An integer that is known: written there, or handed into the loop from around it and never changed."""
        instruction = computation[name]
        if instruction.operation == "constant":
            return int(instruction.arguments) if re.fullmatch(r"-?\d+", instruction.arguments) else None
        if instruction.operation in ("copy", "bitcast"):
            return constant(computation, instruction.operands[0])
        if computation is around or instruction.operation != "get-tuple-element":
            return None
        index = _index(instruction)
        after = body[carried[index]]
        handed_in = computation[instruction.operands[0]].operation == "parameter"
        unchanged = after.operation == "get-tuple-element" and _index(after) == index
        return constant(around, started[index]) if handed_in and unchanged else None

    test = root(condition)
    if test.operation != "compare" or "direction=LT" not in test.attributes:
        return None
    counter, end = test.operands
    if condition[counter].operation != "get-tuple-element":
        return None
    index = _index(condition[counter])
    added = body[carried[index]]
    steps = [constant(body, name) for name in added.operands] if added.operation == "add" else []
    step = next(filter(None, steps), None)
    start, end = constant(around, started[index]), constant(condition, end)
    return None if None in (start, end, step) else max(0, math.ceil((end - start) / step))


def parse(text: str) -> Program:
    """The program that a text describes."""
    computations: dict[str, Computation] = {}
    entry = current = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            current = header[2]
            computations[current] = {}
            entry = current if header[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if found and current:
            instruction = _instruction(*found.groups())
            computations[current][instruction.name] = instruction
    return Program(computations, entry)


def _instruction(marked: str | None, name: str, shape: str, operation: str, rest: str) -> Instruction:
    depth, end = 1, 0
    while end < len(rest) and depth:
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    arguments, attributes = rest[: end - 1], rest[end:]
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments))
    return Instruction(name, operation, arrays(shape), operands, arguments, attributes, bool(marked))


def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape as the text writes it, `(bf16[8,128]{1,0:T(8,128)S(1)}, s32[])`."""
    return tuple(
        Array(dtype, tuple(int(size) for size in sizes.split(",") if size), on_chip=bool(re.search(r"S\(\d", layout)))
        for dtype, sizes, layout in _ARRAY.findall(shape)
    )


def root(computation: Computation) -> Instruction:
    """The instruction whose result is the computation's."""
    return next(instruction for instruction in computation.values() if instruction.root)


def _index(instruction: Instruction) -> int:
    return int(re.search(r"index=(\d+)", instruction.attributes)[1])
