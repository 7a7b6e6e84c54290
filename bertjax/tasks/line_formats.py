"""Rows of files: tab-separated without quotes, CSV and TSV with quotes, whole lines, columns of words.

A row comes with its place, as messages name it. Rows are numbered from 1, the header included, as spreadsheets number
them: a cell with line ends does not count twice.
"""

import collections
import csv
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertjax.errors import UserError, listed, shown
from bertjax.text import readers

_LONGEST_BLOCK = 1 << 20  # lines


class MissingFileError(UserError):
    """There is no file of a split, which only some uses need."""


@dataclass(frozen=True)
class Sheet:
    """A file of cells; its rows may be read once."""

    path: Path
    columns: Mapping[str, int]  # name → position
    rows: Iterator[tuple[str, list[str]]]  # (place, cells)

    def position(self, column: str, remedy: str) -> int:
        """Where a column stands.

        Raises:
          UserError: there is no such column; names those that there are.
        """
        if column not in self.columns:
            found = listed(map(shown, self.columns))
            raise UserError(f"{self.path}: no column {column!r} (found: {found}); {remedy}")
        return self.columns[column]


def unquoted(path: Path, columns: Mapping[str, int] | None = None) -> Sheet:
    """A tab-separated file in which a quotation mark is a character like any other.

    `columns` are the positions in a file without a header. Blank lines are left out.
    """
    rows = ((where, line.split("\t")) for where, line in filled(path))
    if columns is None:
        columns = {name: position for position, name in enumerate(_header(path, rows))}
    return Sheet(path, columns, rows)


def quoted(path: Path, delimiter: str) -> Sheet:
    """A CSV or TSV file with a header: cells in quotes may hold the delimiter, line ends and doubled quotes.

    Raises:
      UserError: two columns of a name; also while the rows are read: quotes that do not match, rows longer or shorter
        than the header, or of more than `readers.MAX_LINE` characters.
    """
    rows = _parsed(path, delimiter)
    names = _header(path, rows)
    for name, count in collections.Counter(names).items():
        if name and count > 1:
            raise UserError(f"{path}: {count} columns are called {shown(name)}; give them names of their own")
    columns = {name: position for position, name in enumerate(names)}
    return Sheet(path, columns, _of_width(rows, len(names), delimiter))


def filled(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) of each line that is not blank."""
    return ((where, line) for where, line in _lines(path) if line.strip())


def blocks(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Runs of (place, line) between blank lines.

    Raises:
      UserError: one is far too long to be a sentence.
    """
    for blank, block in itertools.groupby(_lines(path), lambda row: not row[1].strip()):
        if not blank:
            lines = list(itertools.islice(block, _LONGEST_BLOCK + 1))
            if len(lines) > _LONGEST_BLOCK:
                raise UserError(
                    f"{lines[0][0]}: a sentence of more than {_LONGEST_BLOCK:,} lines; put blank lines between them"
                )
            yield lines


def columns(line: str) -> list[str]:
    """The cells of a line, between tabs or spaces; other white space, as in "5\u00a0000", is a word's own."""
    return re.findall("[^ \t]+", line.rstrip("\r"))


def find(folders: Sequence[Path], names: Sequence[str], remedy: str = "give data_dir the folder with it") -> Path:
    """The first file that there is: any of `names`, which may be patterns, also with .gz, in any of `folders`.

    Raises:
      MissingFileError: there is none.
      UserError: there are several for one pattern.
    """
    for folder in folders:
        for name in names:
            found = sorted(folder.glob(name)) or sorted(folder.glob(f"{name}.gz"))
            if len(found) > 1:
                several = ", ".join(path.name for path in found)
                raise UserError(f"{folder} has several files {name} ({several}); leave one there, or name one")
            if found:
                return found[0]
    where = " or ".join(map(str, folders))
    raise MissingFileError(f"no {' or '.join(names)} in {where}; {remedy}")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    name = str(path)
    return ((f"{name}, row {number}", line) for number, line in readers.lines(path))


def _header(path: Path, rows: Iterator[tuple[str, list[str]]]) -> list[str]:
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: the file is empty; put rows below a header into it")
    return [name.strip() for name in first[1]]


def _parsed(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(readers.MAX_LINE + 1)  # characters; unless told otherwise it refuses more than 131,072
    name, number, size = str(path), 0, 0

    def lines() -> Iterator[str]:
        nonlocal size
        for _, line in readers.lines(path):
            size += len(line) + 1
            if size > readers.MAX_LINE:
                raise UserError(
                    f"{name}, row {number + 1}: it has more than {readers.MAX_LINE:,} characters; is a quotation "
                    "mark not closed?"
                )
            yield f"{line}\n"

    try:
        for number, cells in enumerate(csv.reader(lines(), delimiter=delimiter, strict=True), 1):
            size = 0
            if any(cell.strip() for cell in cells):
                yield f"{name}, row {number}", cells
    except csv.Error as error:
        raise UserError(
            f"{name}, row {number + 1}: quotes do not match ({error}); quote whole cells and double the quotes within"
        ) from error


def _of_width(rows: Iterator[tuple[str, list[str]]], width: int, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    name = {",": "a comma", "\t": "a tab"}[delimiter]
    for where, cells in rows:
        if len(cells) != width:
            raise UserError(f"{where}: {len(cells)} cells where the header has {width}; put text with {name} in quotes")
        yield where, cells
