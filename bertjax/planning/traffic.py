"""What a compiled program reads from and writes to a device's memory (HBM), from its text.

An estimate: every instruction that runs by itself reads its operands and writes its results once; of an array from
which it takes, or into which it puts, a slice, only the slice counts. What lies on the chip costs nothing.
"""

from bertjax.planning.hlo import Computation, Instruction, Program

# They move nothing, or what they call is counted by itself.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "partition-id"}
_FREE |= {"after-all", "opt-barrier", "iota", "broadcast"}
_SLICES = ("dynamic-slice", "slice", "gather")


def traffic(program: Program) -> int:
    """Bytes that one device moves to and from its memory in a step."""
    within = {
        name
        for computation in program.computations.values()
        for instruction in computation.values()
        if instruction.operation not in ("while", "conditional", "call", "async-start")
        for name in instruction.called
    }
    return sum(
        times * sum(_moved(program, program.computations[name], one) for one in program.computations[name].values())
        for name, times in program.runs().items()
        if times and name not in within
    )


def _moved(program: Program, computation: Computation, instruction: Instruction) -> int:
    operation = instruction.operation
    if operation in _FREE or operation.endswith(("-done", "-update")):
        return 0
    fused = [program.computations[name] for name in instruction.called] if operation == "fusion" else []
    body = fused[0] if fused else None
    read = sum(
        _read(body, index, _bytes(computation[name])) for index, name in enumerate(instruction.operands) if name in computation
    )
    return read + _written(body, instruction, computation)


def _bytes(instruction: Instruction) -> int:
    return sum(array.bytes for array in instruction.arrays if not array.on_chip)


def _read(body: Computation | None, index: int, whole: int) -> int:
    """Bytes read of operand `index`, which is `whole` bytes large; a fusion may take slices of it."""
    if body is None or not whole:
        return whole
    parameter = next((one for one in body.values() if one.operation == "parameter" and one.arguments == str(index)), None)
    users = [one for one in body.values() if parameter and parameter.name in one.operands]
    sliced = [one for one in users if one.operation in _SLICES and one.operands[0] == parameter.name]
    updated = [one for one in users if one.operation == "dynamic-update-slice" and one.operands[0] == parameter.name]
    if users and len(sliced) + len(updated) == len(users):  # an array that is updated in place is not read
        return min(whole, sum(array.bytes for one in sliced for array in one.arrays))
    return whole


def _written(body: Computation | None, instruction: Instruction, computation: Computation) -> int:
    if instruction.operation == "dynamic-update-slice":
        return _bytes(computation[instruction.operands[1]])
    if body is None:
        return _bytes(instruction)
    root = next(one for one in body.values() if one.root)
    results = [body[name] for name in root.operands] if root.operation == "tuple" else [root]
    total = 0
    for result, array in zip(results, instruction.arrays, strict=False):
        while result.operation in ("bitcast", "copy", "convert") and result.operands:
            result = body[result.operands[0]]
        if result.operation == "dynamic-update-slice":
            total += sum(part.bytes for part in body[result.operands[1]].arrays)
        elif not array.on_chip:
            total += array.bytes
    return total
