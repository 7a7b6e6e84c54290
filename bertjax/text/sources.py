"""Sources of documents, given as `KIND:LOCATION[@WEIGHT]`.

A source yields its raw documents (wikitext, for example) one at a time in a fixed order; `clean` turns them into text.
The two steps are separate because one process reads and all processes clean.
"""

import dataclasses
import glob
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from bertjax.errors import UserError
from bertjax.text import python_docs, readers, wikipedia

MAX_WEIGHT = 100.0


class SourceIdentity(TypedDict):
    """Identity of a source: its spec, and the path, size in bytes and modification time in ns of each file."""

    spec: str
    files: list[tuple[str, int, int]]


@dataclasses.dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Attributes:
      help: syntax and description, for messages and documentation.
      read: yields the raw documents of (file, argument), or of (location,) for a kind without files.
      clean: returns the text of a raw document.
      files: whether the location names files.
      argument: default of the argument after a second colon; None if the kind takes no argument.
    """

    help: str
    read: Callable[..., Iterator[str]]
    clean: Callable[[str], str] = str
    files: bool = True
    argument: str | None = None


KINDS = {
    "text": SourceKind("text:PATH, documents separated by blank lines", readers.text),
    "file": SourceKind("file:PATH, each file one document (a book)", readers.file),
    "wiki": SourceKind("wiki:PATH, WikiExtractor output or a MediaWiki XML dump", wikipedia.read, wikipedia.clean),
    "jsonl": SourceKind("jsonl:PATH[:FIELD], one JSON object per line", readers.jsonl, argument="text"),
    "parquet": SourceKind("parquet:PATH[:COLUMN]", readers.parquet, argument="text"),
    "tfds": SourceKind("tfds:NAME[:SPLIT[:FEATURE]]", readers.tfds, files=False),
    "pydoc": SourceKind(
        "pydoc:, the documentation bundled with Python", lambda location: python_docs.documents(), files=False
    ),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A source whose files were found to be readable.

    Attributes:
      spec: as the user wrote it.
      kind: key of `KINDS`.
      location: the part between kind and weight.
      weight: number of copies of each document; 0.5 keeps half of the documents.
      files: in order; empty for a kind without files.
      argument: field, column or "".
    """

    spec: str
    kind: str
    location: str
    weight: float = 1.0
    files: tuple[Path, ...] = ()
    argument: str = ""

    def documents(self) -> Iterator[str]:
        """Yields the non-empty raw documents in order, without white space at their ends.

        Raises:
          UserError: binary data, invalid UTF-8, a missing field, …; the message names the place.
        """
        kind = KINDS[self.kind]
        calls = [(path, self.argument) for path in self.files] if kind.files else [(self.location,)]
        for arguments in calls:
            yield from filter(None, map(str.strip, kind.read(*arguments)))

    def clean(self, raw: str) -> str:
        """Returns the text of a raw document; may be empty."""
        return KINDS[self.kind].clean(raw)

    def identity(self) -> SourceIdentity:
        """Returns the identity that must be unchanged when a build resumes."""
        files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        return {"spec": self.spec, "files": files}


def parse_sources(specs: Sequence[str]) -> list[Source]:
    """Parses source specs and finds their files.

    Raises:
      UserError: unknown kind, no such file, empty file, invalid weight.
    """
    if not specs:
        raise UserError("no source; pass --source=KIND:LOCATION, e.g. --source=pydoc:")
    return [_parse_source(spec) for spec in specs]


def _parse_source(spec: str) -> Source:
    body, weight = _split_weight(spec)
    name, colon, location = body.partition(":")
    if not colon or name not in KINDS:
        forms = "; ".join(kind.help for kind in KINDS.values())
        raise UserError(f"--source={spec}: unknown kind of source; pass one of: {forms}")
    kind = KINDS[name]
    if not kind.files:
        return Source(spec, name, location, weight)
    files, argument = _find_files(location), kind.argument or ""
    if not files and kind.argument is not None and ":" in location:
        location, _, argument = location.rpartition(":")
        files = _find_files(location)
    if not files:
        raise UserError(
            f"--source={spec}: no such file; check the path {location!r}, and put a glob in quotes, e.g. "
            "--source='text:news/*.txt'"
        )
    for path in files:
        _check_readable(path)
    return Source(spec, name, location, weight, files, argument)


def _split_weight(spec: str) -> tuple[str, float]:
    """Splits a spec into the part before the weight and the weight; a path may contain an @ itself."""
    match = re.fullmatch(r"(.*)@([0-9.]+)", spec, re.DOTALL)
    if not match:
        return spec, 1.0
    try:
        weight = float(match[2])
    except ValueError as error:
        raise UserError(f"--source={spec}: the weight {match[2]!r} is not a number; pass e.g. @2 or @0.5") from error
    if not 0 < weight <= MAX_WEIGHT:
        raise UserError(f"--source={spec}: weight out of range; pass a number above 0 and at most {MAX_WEIGHT:g}")
    return match[1], weight


def _find_files(location: str) -> tuple[Path, ...]:
    """Returns a file, all files below a folder except hidden ones, or the matches of a glob, sorted by path."""
    path = Path(location).expanduser()
    if path.is_file():
        return (path,)
    if path.is_dir():
        paths = [
            file for file in path.rglob("*") if not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    else:
        paths = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (absolute patterns)
    return tuple(sorted(path for path in paths if path.is_file()))


def _check_readable(path: Path) -> None:
    """Checks that a file is readable and not empty."""
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty; exclude it, or add text to it")
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
