"""Typed reading of files: JSON to dataclasses, or one line that names the file, the place in it and the cure.

Files of bertjax's own are *sealed*: they carry a digest over all their other values, so that what is read is what was
written, or is refused. What other programs write may say more than its type asks for; ours may not.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from bertjax.errors import UserError, first_line

T = TypeVar("T")

MAX_BYTES = 2**26  # of a file of metadata; a corpus of 100,000 shards has 25 MB of it
MAX_DEPTH = 32  # of lists and objects within each other

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Size = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # SHA-256, hex
ShortText = Annotated[str, msgspec.Meta(max_length=4096)]
# A name that cannot leave its folder, whatever system reads it; the pattern of one part of a path.
PATH_PART = r"(?!\.{1,2}(?:/|\Z))[^/\\\x00-\x1f]{1,255}"
FileName = Annotated[str, msgspec.Meta(pattern=rf"\A{PATH_PART}\Z")]

_SEAL = "sha256"


@dataclasses.dataclass(frozen=True)
class Written:
    """What is written down of a file: its size and its SHA-256."""

    bytes: Count
    sha256: Digest


class DecodingError(UserError):
    """Content that is not what its type says.

    Attributes:
      problem: what is wrong and at which place, without the file and the cure.
    """

    def __init__(self, problem: str, where: str | Path, cure: str) -> None:
        super().__init__(f"{where}: not valid ({problem}); {cure}")
        self.problem = problem


def read(path: Path, cls: type[T], cure: str, *, foreign: bool = False, limit: int = MAX_BYTES) -> T:
    """The content of a JSON file as a `cls`; `foreign` as in `convert`.

    Raises:
      UserError: it is missing, cannot be read, or is larger than `limit` bytes.
      DecodingError: it is no JSON, or not what `cls` says.
    """
    return convert(parse(read_bytes(path, cure, limit), path, cure), cls, path, cure, foreign=foreign)


def read_bytes(path: Path, cure: str, limit: int = MAX_BYTES) -> bytes:
    """The content of a file.

    Raises:
      UserError: it is missing, no file, cannot be read, or is larger than `limit` bytes.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise DecodingError("not a file", path, cure)
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); {cure}") from error
    if len(data) > limit:
        raise DecodingError(f"larger than {limit:,} bytes", path, cure)
    return data


def parse(data: bytes | str, where: str | Path, cure: str) -> Any:
    """The values of a JSON text, as Python's own reader has them, which other libraries read such files with.

    Args:
      data: the text; bytes are UTF-8.
      where: the file, and perhaps the line, for messages.
      cure: what to do about a damaged file, for messages.

    Raises:
      DecodingError: it is not JSON, nested deeper than MAX_DEPTH, or holds halves of characters.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        values = json.loads(text)
        if "\\ud" in text or "\\uD" in text:  # half of a character cannot be written anywhere
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DecodingError("broken text: half of a surrogate pair", where, cure) from error
    except (ValueError, RecursionError) as error:
        raise DecodingError(f"not JSON: {first_line(error)}", where, cure) from error
    level, depth = [values], 0
    while level := [child for one in level if isinstance(one, dict | list) for child in _children(one)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise DecodingError(f"nested more than {MAX_DEPTH} deep", where, cure)
    return values


def decode(data: bytes | str, cls: type[T], where: str | Path, cure: str) -> T:
    """`convert(parse(…), foreign=True)`, several times as fast where `data` is a `cls`: for files with many records.

    Values without a place in `cls` are not kept, and so may be nested deeper.
    """
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.DecodeError, UnicodeError, RecursionError):  # Python's reader knows more numbers, and names places
        return convert(parse(data, where, cure), cls, where, cure, foreign=True)


def convert(values: Any, cls: type[T], where: str | Path, cure: str, *, foreign: bool = False) -> T:
    """`values`, as `parse` returns them, as a `cls`: a dataclass, or anything else that msgspec knows.

    Keys that `cls` has not are left out where the file is `foreign`, another program's.

    Raises:
      DecodingError: a value of another type, a missing key, or an unknown one where it is not foreign.
    """
    try:
        result = msgspec.convert(values, cls)
        unknown = None if foreign else next(_unknown_keys(values, msgspec.to_builtins(result)), None)
    except (msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
        raise DecodingError(_problem(str(error)), where, cure) from error
    if unknown is not None:
        raise DecodingError(f"unknown key {unknown}", where, cure)
    return result


def columns_type(columns: Mapping[str, tuple[str, Any]]) -> type:
    """A type for `decode`: objects that may have some columns, whatever these are called.

    `columns`: attribute of the result → (column, its type); `msgspec.UNSET` stands for a column that is missing.
    """
    fields = [(name, cls | msgspec.UnsetType, msgspec.UNSET) for name, (_, cls) in columns.items()]
    names = {name: column for name, (column, _) in columns.items()}
    return msgspec.defstruct("Columns", fields, rename=names, gc=False)


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as JSON has them, and their seal."""
    plain = json.loads(json.dumps(values))
    return plain | {_SEAL: digest(plain)}


def without_seal(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` that are to be sealed again, whatever their seal says."""
    return {key: value for key, value in values.items() if key != _SEAL}


def unsealed(values: Any, where: str | Path, cure: str) -> dict[str, Any]:
    """The values that were sealed.

    Raises:
      DecodingError: they are not those, or there is no seal.
    """
    if not isinstance(values, dict) or _SEAL not in values:
        raise DecodingError(f"without its seal, {_SEAL}", where, cure)
    content = without_seal(values)
    if values[_SEAL] != digest(content):
        raise DecodingError("checksum mismatch", where, cure)
    return content


def read_sealed(path: Path, cls: type[T], cure: str) -> T:
    """The content of a sealed JSON file as a `cls`.

    Raises:
      UserError: it is missing or cannot be read.
      DecodingError: it is not as it was written.
    """
    values = parse(read_bytes(path, cure), path, cure)
    return convert(unsealed(values, path, cure), cls, path, cure)


def digest(values: Any) -> str:
    """The SHA-256 of the canonical form of JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _problem(message: str) -> str:
    """A library's message with the place first, as in `shards.train[1].bytes: Expected `int`, got `str``."""
    message = re.sub("matching regex .*?(?= - at |$)", "of another form", (message.splitlines() or [""])[0])
    wrong, _, place = message.rpartition(" - at ")
    if not wrong:
        return message
    of_key = place.startswith("`key` in ")
    place = place.removeprefix("`key` in ").strip("`").removeprefix("$").removeprefix(".")
    place = f"a key{f' of {place}' if place else ''}" if of_key else place
    return f"{place}: {wrong}"


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


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
