"""Where documents come from: `kind:where[@weight]`.

A source gives its documents in a fixed order, one at a time. What it gives may be raw (wikitext); `clean` makes it
text. The two are apart because one process reads and all of them clean.
"""

import dataclasses
import glob
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bertjax.errors import UserError
from bertjax.text import python_docs, readers, wikipedia

MAX_WEIGHT = 100.0


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of source.

    Attributes:
      help: what stands behind the colon, for messages and documentation.
      read: (file, argument) to raw documents; for a kind without files, (where,) to raw documents.
      clean: a raw document to its text.
      files: whether `where` names files.
      argument: the default of what may follow the files after a second colon, or None where nothing may.
    """

    help: str
    read: Callable[..., Iterator[str]]
    clean: Callable[[str], str] = str
    files: bool = True
    argument: str | None = None


KINDS = {
    "text": Kind("text:PATH, documents with a blank line between them", readers.text),
    "file": Kind("file:PATH, each file one document (a book)", readers.file),
    "wiki": Kind("wiki:PATH, WikiExtractor output or a MediaWiki XML dump", wikipedia.read, wikipedia.clean),
    "jsonl": Kind("jsonl:PATH[:FIELD], one JSON object a line", readers.jsonl, argument="text"),
    "parquet": Kind("parquet:PATH[:COLUMN]", readers.parquet, argument="text"),
    "tfds": Kind("tfds:NAME[:SPLIT[:FEATURE]]", readers.tfds, files=False),
    "pydoc": Kind("pydoc:, the documentation that Python carries", lambda where: python_docs.documents(), files=False),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """One source, checked: its files exist.

    Attributes:
      spec: as the user wrote it.
      kind: key of `KINDS`.
      where: the part between kind and weight.
      weight: how often each document comes: 2 twice, 0.5 every second one.
      files: for a kind with files, in order.
      argument: field, column or "".
    """

    spec: str
    kind: str
    where: str
    weight: float = 1.0
    files: tuple[Path, ...] = ()
    argument: str = ""

    def documents(self) -> Iterator[str]:
        """Raw documents in order, stripped of white space at their ends, none empty.

        Raises:
          UserError: a file that is no text, broken UTF-8, a missing field, … with the place.
        """
        kind = KINDS[self.kind]
        calls = [(path, self.argument) for path in self.files] if kind.files else [(self.where,)]
        for arguments in calls:
            yield from filter(None, map(str.strip, kind.read(*arguments)))

    def clean(self, raw: str) -> str:
        """The text of a raw document; may be empty."""
        return KINDS[self.kind].clean(raw)

    def identity(self) -> dict[str, Any]:
        """What must be unchanged when a build goes on: spec, and the files with their sizes and times."""
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        return {"spec": self.spec, "files": [list(stat) for stat in stats]}


def parse(specs: Sequence[str]) -> list[Source]:
    """Reads source specs and finds their files.

    Raises:
      UserError: unknown kind, no such file, empty file, bad weight.
    """
    if not specs:
        raise UserError("no source; give --source=KIND:WHERE, e.g. --source=pydoc:")
    return [_parse(spec) for spec in specs]


def _parse(spec: str) -> Source:
    body, weight = _weight(spec)
    name, colon, where = body.partition(":")
    if not colon or name not in KINDS:
        forms = "; ".join(kind.help for kind in KINDS.values())
        raise UserError(f"--source={spec}: unknown kind of source; give one of: {forms}")
    kind = KINDS[name]
    if not kind.files:
        return Source(spec, name, where, weight)
    files, argument = _files(where), kind.argument or ""
    if not files and kind.argument is not None and ":" in where:
        where, _, argument = where.rpartition(":")
        files = _files(where)
    if not files:
        raise UserError(f"--source={spec}: no such file; check the path {where!r} (quote globs)")
    for path in files:
        _check(path)
    return Source(spec, name, where, weight, files, argument)


def _weight(spec: str) -> tuple[str, float]:
    """Cuts the weight off; a path may hold an @ of its own."""
    match = re.fullmatch(r"(.*)@([0-9.]+)", spec, re.DOTALL)
    if not match:
        return spec, 1.0
    try:
        weight = float(match[2])
    except ValueError as error:
        raise UserError(f"--source={spec}: the weight {match[2]!r} is no number; give e.g. @2 or @0.5") from error
    if not 0 < weight <= MAX_WEIGHT:
        raise UserError(f"--source={spec}: a weight is above 0 and at most {MAX_WEIGHT:g}; give such a number")
    return match[1], weight


def _files(where: str) -> tuple[Path, ...]:
    """A file, all files below a folder (hidden ones apart), or what a glob matches; sorted by path."""
    path = Path(where).expanduser()
    if path.is_file():
        return (path,)
    if path.is_dir():
        found = [
            file for file in path.rglob("*") if not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (absolute patterns)
    return tuple(sorted(file for file in found if file.is_file()))


def _check(path: Path) -> None:
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path}: the file is empty; leave it out or put text into it")
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
