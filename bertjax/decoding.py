"""Typed reading of JSON files into dataclasses; errors name the file, the place in it and the remedy.

bertjax's own files are *sealed*: they contain a digest of all their other values, which reveals any change. Files of
other programs may have keys unknown to their type; bertjax's own may not.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, TypeVar

import msgspec

from bertjax.errors import UserError, first_line

T = TypeVar("T")

MAX_BYTES = 2**26  # size of a metadata file; that of a corpus of 100,000 shards is 25 MB
MAX_DEPTH = 32  # nesting of lists and objects

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Size = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # SHA-256, hex
ShortText = Annotated[str, msgspec.Meta(max_length=4096)]
# One part of a path, which cannot point outside its folder on any operating system.
PATH_PART = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f]{1,255}"
FileName = Annotated[str, msgspec.Meta(pattern=rf"\A{PATH_PART}\Z")]

_SEAL = "sha256"


@dataclasses.dataclass(frozen=True)
class FilePrefix:
    """Recorded size in bytes and SHA-256 of a file, or of its beginning."""

    bytes: Count
    sha256: Digest


class DecodingError(UserError):
    """Content that does not match its type.

    Attributes:
      problem: the problem and its place, without the file and the remedy.
    """

    def __init__(self, problem: str, where: str | Path, remedy: str) -> None:
        super().__init__(f"{where}: not valid ({problem}); {remedy}")
        self.problem = problem


def read(path: Path, cls: type[T], remedy: str, *, foreign: bool = False, limit: int = MAX_BYTES) -> T:
    """Returns the content of a JSON file as a `cls`; `foreign` as in `convert`.

    Raises:
      UserError: the file is missing or cannot be read.
      DecodingError: the file is larger than `limit` bytes, not JSON, or does not match `cls`.
    """
    return convert(parse(read_bytes(path, remedy, limit), path, remedy), cls, path, remedy, foreign=foreign)


def read_bytes(path: Path, remedy: str, limit: int = MAX_BYTES) -> bytes:
    """Returns the content of a file.

    Raises:
      UserError: the file is missing or cannot be read.
      DecodingError: the path is not a file, or the file is larger than `limit` bytes.
    """
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise DecodingError("not a file", path, remedy)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {remedy}") from error
    if len(data) > limit:
        raise DecodingError(f"larger than {limit:,} bytes", path, remedy)
    return data


def parse(data: bytes | str, where: str | Path, remedy: str) -> object:
    """Returns the values of a JSON text, as the `json` module reads them.

    Args:
      data: the text; bytes are UTF-8.
      where: the file, optionally with the line, for messages.
      remedy: the remedy for a damaged file, for messages.

    Raises:
      DecodingError: the text is not JSON, nested deeper than MAX_DEPTH, or contains unpaired surrogates.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        values = json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # an unpaired surrogate cannot be encoded
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DecodingError("invalid text: unpaired surrogate", where, remedy) from error
    except (ValueError, RecursionError) as error:
        raise DecodingError(f"not JSON: {first_line(error)}", where, remedy) from error
    level, depth = [values], 0
    while level := [child for node in level if isinstance(node, dict | list) for child in _children(node)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise DecodingError(f"nested more than {MAX_DEPTH} levels deep", where, remedy)
    return values


def decode(data: bytes | str, cls: type[T], where: str | Path, remedy: str) -> T:
    """Returns `convert(parse(…), foreign=True)`, several times as fast for valid `data`: for files with many records.

    Values of keys unknown to `cls` are skipped and may be nested deeper.
    """
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # `json` accepts more numbers and locates errors
        return convert(parse(data, where, remedy), cls, where, remedy, foreign=True)


def convert(values: object, cls: type[T], where: str | Path, remedy: str, *, foreign: bool = False) -> T:
    """Returns `values`, the result of `parse`, as a `cls`: a dataclass or another type supported by msgspec.

    In a `foreign` file, one of another program, keys unknown to `cls` are ignored.

    Raises:
      DecodingError: a value has the wrong type, a key is missing, or a key is unknown and the file not foreign.
    """
    try:
        result = msgspec.convert(values, cls)
        unknown = None if foreign else next(_unknown_keys(values, msgspec.to_builtins(result)), None)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
        raise DecodingError(_problem(str(error)), where, remedy) from error
    if unknown is not None:
        raise DecodingError(f"unknown key {unknown}", where, remedy)
    return result


def columns_type(columns: Mapping[str, tuple[str, type | UnionType]]) -> type:
    """Returns a type for `decode`: objects with optional columns of arbitrary names.

    `columns`: attribute of the result → (column, its type); the attribute of a missing column is `msgspec.UNSET`.
    """
    fields = [(name, cls | msgspec.UnsetType, msgspec.UNSET) for name, (_, cls) in columns.items()]
    names = {name: column for name, (column, _) in columns.items()}
    return msgspec.defstruct("Columns", fields, rename=names, gc=False)


def sealed(values: Mapping[str, object]) -> dict[str, object]:
    """Returns `values` as JSON values, with their seal."""
    plain = json.loads(json.dumps(values))
    return plain | {_SEAL: digest(plain)}


def without_seal(values: Mapping[str, object]) -> dict[str, object]:
    """Returns `values` without their seal, which is not checked."""
    return {key: value for key, value in values.items() if key != _SEAL}


def unsealed(values: object, where: str | Path, remedy: str) -> dict[str, object]:
    """Returns `values` without their seal after checking it.

    Raises:
      DecodingError: the values do not match the seal, or there is no seal.
    """
    if not isinstance(values, dict) or _SEAL not in values:
        raise DecodingError(f"missing seal {_SEAL}", where, remedy)
    content = without_seal(values)
    if values[_SEAL] != digest(content):
        raise DecodingError("checksum mismatch", where, remedy)
    return content


def read_sealed(path: Path, cls: type[T], remedy: str) -> T:
    """Returns the content of a sealed JSON file as a `cls`.

    Raises:
      UserError: the file is missing or cannot be read.
      DecodingError: the file does not match its seal or `cls`.
    """
    values = parse(read_bytes(path, remedy), path, remedy)
    return convert(unsealed(values, path, remedy), cls, path, remedy)


def digest(values: object) -> str:
    """Returns the SHA-256 of the canonical form of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _problem(message: str) -> str:
    """Returns a message of msgspec with the place first: "shards.train[1].bytes: Expected `int`, got `str`"."""
    message = re.sub("matching regex .*?(?= - at |$)", "in a different format", (message.splitlines() or [""])[0])
    problem, _, place = message.rpartition(" - at ")
    if not problem:
        return message
    is_key = place.startswith("`key` in ")
    place = place.removeprefix("`key` in ").strip("`").removeprefix("$").removeprefix(".")
    place = f"a key{f' of {place}' if place else ''}" if is_key else place
    return f"{place}: {problem}"


def _children(node: dict[str, object] | list[object]) -> Iterable[object]:
    return node.values() if isinstance(node, dict) else node


def _unknown_keys(values: object, known: object, path: str = "") -> Iterator[str]:
    """Yields the paths of the keys of `values` that are missing from `known`, which is otherwise equal."""
    if isinstance(values, dict) and isinstance(known, dict):
        for key, value in values.items():
            place = f"{path}.{key}" if path else key
            if key in known:
                yield from _unknown_keys(value, known[key], place)
            else:
                yield place
    elif isinstance(values, list) and isinstance(known, list | tuple):
        for index, (value, known_value) in enumerate(zip(values, known, strict=True)):
            yield from _unknown_keys(value, known_value, f"{path}[{index}]")
