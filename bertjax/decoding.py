"""Typed reading of files: JSON to dataclasses, or one line that names the file, the place in it and the cure."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bertjax.errors import UserError, first_line

T = TypeVar("T")


class DecodingError(UserError):
    """Content that is not what its type says.

    Attributes:
      problem: what is wrong and at which place, without the file and the cure.
    """

    def __init__(self, problem: str, where: str | Path, cure: str) -> None:
        super().__init__(f"{where}: damaged ({problem}); {cure}")
        self.problem = problem


def parse(data: bytes, where: str | Path, cure: str) -> Any:
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


def convert(values: Any, cls: type[T], where: str | Path, cure: str) -> T:
    """`values`, as `parse` returns them, as a `cls`: a dataclass, or anything else that msgspec knows.

    Raises:
      DecodingError: a value of another type, a missing key or an unknown one.
    """
    try:
        result = msgspec.convert(values, cls)
        unknown = next(_unknown_keys(values, msgspec.to_builtins(result)), None)
    except (msgspec.ValidationError, RecursionError) as error:
        message, _, place = first_line(error).rpartition(" - at ")
        problem = f"{place.strip('`').removeprefix('$.')}: {message}" if message else place
        raise DecodingError(problem, where, cure) from error
    if unknown is not None:
        raise DecodingError(f"unknown key {unknown}", where, cure)
    return result


def _unknown_keys(values: Any, known: Any, path: str = "") -> Iterator[str]:
    """The paths of the keys of `values` that `known`, which is equal elsewhere, lacks."""
    if isinstance(values, dict):
        for key, value in values.items():
            place = f"{path}.{key}" if path else key
            if key in known:
                yield from _unknown_keys(value, known[key], place)
            else:
                yield place
    elif isinstance(values, list):
        for index, (value, other) in enumerate(zip(values, known, strict=True)):
            yield from _unknown_keys(value, other, f"{path}[{index}]")
