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
            instruction.name: self._trips(name, instruction)
            for name, computation in self.computations.items()
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

    def _trips(self, caller: str, loop: Instruction) -> int | None:
        known = _TRIPS.search(loop.attributes)
        return int(known[1]) if known else self._counted(caller, loop)

    def _counted(self, caller: str, loop: Instruction) -> int | None:
        """Trips of a loop `for (i = start; i < end; i += step)`, the form that a scan has; None for any other."""
        found = dict(re.findall(r"(condition|body)=%?([\w.\-]+)", loop.attributes))
        condition, body = (self.computations[found[name]] for name in ("condition", "body"))
        test = root(condition)
        if test.operation != "compare" or "direction=LT" not in test.attributes:
            return None
        counter, end = (condition[name] for name in test.operands)
        if counter.operation != "get-tuple-element":
            return None
        index = _index(counter)
        start = self._constant(caller, self.computations[caller][loop.operands[0]].operands[index])
        step = self._step(body, body[root(body).operands[index]], caller, loop)
        end = self._constant_in(condition, end, caller, loop)
        return None if None in (start, end, step) or not step else max(0, math.ceil((end - start) / step))

    def _step(self, body: Computation, added: Instruction, caller: str, loop: Instruction) -> int | None:
        if added.operation != "add":
            return None
        values = [self._constant_in(body, body[name], caller, loop) for name in added.operands]
        return next((value for value in values if value is not None), None)

    def _constant_in(
        self, computation: Computation, instruction: Instruction, caller: str, loop: Instruction
    ) -> int | None:
        """An integer known inside a loop: written there, or handed in from outside and never changed."""
        if instruction.operation == "constant":
            return _integer(instruction)
        if instruction.operation == "copy":
            return self._constant_in(computation, computation[instruction.operands[0]], caller, loop)
        if instruction.operation != "get-tuple-element":
            return None
        index = _index(instruction)
        if computation[instruction.operands[0]].operation != "parameter":
            return None
        body = self.computations[re.search(r"body=%?([\w.\-]+)", loop.attributes)[1]]
        carried = body[root(body).operands[index]]
        unchanged = carried.operation == "get-tuple-element" and _index(carried) == index
        outside = self.computations[caller][loop.operands[0]].operands[index]
        return self._constant(caller, outside) if unchanged else None

    def _constant(self, caller: str, name: str) -> int | None:
        instruction = self.computations[caller][name]
        while instruction.operation in ("copy", "bitcast"):
            instruction = self.computations[caller][instruction.operands[0]]
        return _integer(instruction) if instruction.operation == "constant" else None


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


def _integer(instruction: Instruction) -> int | None:
    return int(instruction.arguments) if re.fullmatch(r"-?\d+", instruction.arguments) else None
