"""Memory traffic (HBM) of a compiled program, estimated from its text.

Every instruction that runs on its own reads its operands and writes its results once. If it takes or updates only a
slice of an array, only the slice counts. Arrays in on-chip memory cost nothing.
"""

from bertjax.planning.hlo import Computation, Instruction, Program, root

# Operations that move nothing, or whose called computations are counted on their own.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call")
_SLICES = ("dynamic-slice", "slice", "gather")


def traffic(program: Program) -> int:
    """Returns the bytes that one device moves to and from its memory in a step."""
    counted_by_caller = {
        name
        for computation in program.computations.values()
        for instruction in computation.values()
        if instruction.operation not in ("while", "conditional", "call", "async-start")
        for name in instruction.called
    }
    total = 0
    for name, times in program.runs.items():
        if times and name not in counted_by_caller:
            computation = program.computations[name]
            total += times * sum(_moved(program, computation, instruction) for instruction in computation.values())
    return total


def _moved(program: Program, computation: Computation, instruction: Instruction) -> int:
    operation = instruction.operation
    allocates = operation == "custom-call" and not instruction.operands
    if operation in _FREE or allocates or operation.endswith(("-done", "-update")):
        return 0
    if operation in ("copy-start", "slice-start"):  # results: (destination, source, …) and (source, destination, …)
        destination = instruction.arrays[0 if operation == "copy-start" else 1]
        ends = (computation[instruction.operands[0]].arrays[0], destination)
        return destination.bytes * sum(not end.on_chip for end in ends)
    body = program.computations[instruction.called[0]] if operation == "fusion" else None
    operands = [computation[name] for name in instruction.operands if name in computation]
    read = sum(_read(program, body, index, _bytes(operand)) for index, operand in enumerate(operands))
    return read + _written(body, instruction, computation)


def _bytes(instruction: Instruction) -> int:
    return sum(array.bytes for array in instruction.arrays if not array.on_chip)


def _read(program: Program, body: Computation | None, index: int, size: int) -> int:
    """Returns the bytes read of operand `index` of `size` bytes; a fusion may read only slices of it."""
    if body is None or not size:
        return size
    parameters = (node for node in body.values() if node.operation == "parameter")
    name = next(node.name for node in parameters if node.arguments == str(index))
    return min(size, _read_in_fusion(program, body, name, size))


def _read_in_fusion(program: Program, body: Computation, name: str, size: int) -> int:
    """Returns the bytes that the instructions of a fusion read of the array `name`, of `size` bytes."""
    total = 0
    for user in (node for node in body.values() if name in node.operands):
        if user.operation in _SLICES and user.operands[0] == name:
            total += sum(array.bytes for array in user.arrays)
        elif user.operation == "bitcast":
            total += _read_in_fusion(program, body, user.name, size)
        elif user.operation == "fusion":
            inner = program.computations[user.called[0]]
            total += _read(program, inner, user.operands.index(name), size)
        elif user.operation != "dynamic-update-slice" or user.operands[0] != name:  # read unless updated in place
            total += size
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
