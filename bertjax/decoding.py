"""Typed reading of files: JSON to dataclasses, or one line that names the file, the place in it and the cure."""

import json
from typing import Any, TypeVar

import msgspec

from bertjax.errors import UserError, first_line

T = TypeVar("T")


class DecodingError(UserError):
    """Content that is not what its type says.

    Attributes:
      problem: what is wrong and at which place, without the file and the cure.
    """

    def __init__(self, problem: str, where: str, cure: str) -> None:
        super().__init__(f"{where}: damaged ({problem}); {cure}")
        self.problem = problem


def parse(data: bytes, where: str, cure: str) -> Any:
    """The values of a JSON text.

    Args:
      data: the text, in UTF-8.
      where: the file, for messages.
      cure: what to do about a damaged file, for messages.

    Raises:
      DecodingError: it is not JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DecodingError(f"not JSON: {first_line(error)}", where, cure) from error


def convert(values: Any, cls: type[T], where: str, cure: str) -> T:
    """`values`, as `parse` returns them, as a `cls`: a dataclass, or anything else that msgspec knows.

    Raises:
      DecodingError: a value of another type, a missing key or an unknown one.
    """
    try:
        result = msgspec.convert(values, cls)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, place = first_line(error).rpartition(" - at ")
        problem = f"{place.strip('`').removeprefix('$.')}: {message}" if message else place
        raise DecodingError(problem, where, cure) from error
    unknown = _unknown_key(values, msgspec.to_builtins(result))
    if unknown:
        raise DecodingError(f"unknown key {unknown}", where, cure)
    return result


def _unknown_key(values: Any, known: Any) -> str | None:
    """The path of the first key of `values` that is missing in `known`, which is equal elsewhere."""
    if isinstance(values, dict):
        for key, value in values.items():
            rest = _unknown_key(value, known[key]) if key in known else ""
            if rest is not None:
                return f"{key}{rest and '.' * (rest[0] != '[')}{rest}"
    elif isinstance(values, list):
        for index, (value, other) in enumerate(zip(values, known, strict=True)):
            rest = _unknown_key(value, other)
            if rest is not None:
                return f"[{index}]{'.' * (rest[0] != '[')}{rest}"
    return None
