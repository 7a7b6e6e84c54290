"""What a compiled program reads from and writes to a device's memory (HBM), from its text.

An estimate: every instruction that runs by itself reads its operands and writes its results once; of an array from
which it takes, or into which it puts, a slice, only the slice counts. What lies on the chip costs nothing.
"""

from bertjax.planning.hlo import Computation, Instruction, Program, root

# They move nothing, or what they call is counted by itself.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call")
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
        for name, times in program.runs.items()
        if times and name not in within
    )


def _moved(program: Program, computation: Computation, instruction: Instruction) -> int:
    operation = instruction.operation
    made_of_nothing = operation == "custom-call" and not instruction.operands  # room for something to come
    if operation in _FREE or made_of_nothing or operation.endswith(("-done", "-update")):
        return 0
    if operation in ("copy-start", "slice-start"):  # the results are what arrives, where from, and a counter
        arrives = instruction.arrays[0 if operation == "copy-start" else 1]
        ends = (computation[instruction.operands[0]].arrays[0], arrives)
        return arrives.bytes * sum(not end.on_chip for end in ends)
    body = program.computations[instruction.called[0]] if operation == "fusion" else None
    operands = [computation[name] for name in instruction.operands if name in computation]
    read = sum(_read(program, body, index, _bytes(operand)) for index, operand in enumerate(operands))
    return read + _written(body, instruction, computation)


def _bytes(instruction: Instruction) -> int:
    return sum(array.bytes for array in instruction.arrays if not array.on_chip)


def _read(program: Program, body: Computation | None, index: int, whole: int) -> int:
    """Bytes read of operand `index`, which is `whole` bytes large; a fusion may take slices of it."""
    if body is None or not whole:
        return whole
    parameters = (one.name for one in body.values() if one.operation == "parameter" and one.arguments == str(index))
    return min(whole, _taken(program, body, next(parameters), whole))


def _taken(program: Program, body: Computation, name: str, whole: int) -> int:
    """Bytes that the instructions of a fusion take of the array `name`."""
    total = 0
    for user in (one for one in body.values() if name in one.operands):
        if user.operation in _SLICES and user.operands[0] == name:
            total += sum(array.bytes for array in user.arrays)
        elif user.operation == "bitcast":
            total += _taken(program, body, user.name, whole)
        elif user.operation == "fusion":
            inner = program.computations[user.called[0]]
            total += _read(program, inner, user.operands.index(name), whole)
        elif user.operation != "dynamic-update-slice" or user.operands[0] != name:  # updated in place, it is not read
            total += whole
    return total


def _written(body: Computation | None, instruction: Instruction, computation: Computation) -> int:
    if instruction.operation == "dynamic-update-slice":
        return _bytes(computation[instruction.operands[1]])
    if body is None:
        return _bytes(instruction)
    last = root(body)
    results = [body[name] for name in last.operands] if last.operation == "tuple" else [last]
    total = 0
    for result, array in zip(results, instruction.arrays, strict=False):
        while result.operation in ("bitcast", "copy", "convert") and result.operands:
            result = body[result.operands[0]]
        if result.operation == "dynamic-update-slice":
            total += sum(part.bytes for part in body[result.operands[1]].arrays)
        elif not array.on_chip:
            total += array.bytes
    return total
