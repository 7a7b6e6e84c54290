"""Rows of files: tab-separated without quotes, CSV and TSV with quotes, JSON lines, columns of words.

Rows are numbered from 1, the header included, as spreadsheets number them: a cell with line ends does not count twice.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertjax.errors import UserError
from bertjax.text import readers

_LONGEST_CELL = 1 << 30  # characters; the csv module refuses texts of more than 131,072 unless told otherwise


class MissingFileError(UserError):
    """There is no file of a split, which only some uses need."""


@dataclass(frozen=True)
class Sheet:
    """A file of cells; its rows may be read once."""

    path: Path
    columns: Mapping[str, int]  # name → position
    rows: Iterator[tuple[int, list[str]]]  # (number, cells)

    def position(self, column: str, remedy: str) -> int:
        """Where a column stands.

        Raises:
          UserError: there is no such column; names those that there are.
        """
        if column not in self.columns:
            found = ", ".join(map(repr, self.columns))
            raise UserError(f"{self.path}: no column {column!r} (found: {found}); {remedy}")
        return self.columns[column]


def place(path: Path, number: int) -> str:
    """A row, as messages name it."""
    return f"{path}, row {number}"


def unquoted(path: Path, columns: Mapping[str, int] | None = None) -> Sheet:
    """A tab-separated file in which a quotation mark is a character like any other.

    `columns` are the positions in a file without a header. Blank lines are left out.
    """
    return _sheet(path, ((number, line.split("\t")) for number, line in readers.lines(path) if line.strip()), columns)


def quoted(path: Path, delimiter: str) -> Sheet:
    """A CSV or TSV file with a header: cells in quotes may hold the delimiter, line ends and doubled quotes.

    Raises:
      UserError: also while the rows are read: quotes that do not match, rows longer or shorter than the header.
    """
    sheet = _sheet(path, _parsed(path, delimiter), None)
    return Sheet(path, sheet.columns, _of_width(sheet, len(sheet.columns), delimiter))


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of each line that is not blank."""
    for number, line in readers.lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{place(path, number)}: not JSON ({error}); put the line right") from error
        if not isinstance(record, dict):
            raise UserError(f"{place(path, number)}: {type(record).__name__}, not an object; write {{…}}")
        yield number, record


def blocks(path: Path) -> Iterator[list[tuple[int, str]]]:
    """Runs of (number, line) between blank lines."""
    block: list[tuple[int, str]] = []
    for number, line in readers.lines(path):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def columns(line: str) -> list[str]:
    """The cells of a line, between tabs or spaces; other white space, as in "5\u00a0000", is a word's own."""
    return re.findall("[^ \t]+", line.rstrip("\r"))


def find(folders: Sequence[Path], names: Sequence[str], remedy: str) -> Path:
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


def _sheet(path: Path, rows: Iterator[tuple[int, list[str]]], columns: Mapping[str, int] | None) -> Sheet:
    if columns is None:
        first = next(rows, None)
        if first is None:
            raise UserError(f"{path}: the file is empty; put rows below a header into it")
        columns = {name.strip(): position for position, name in enumerate(first[1])}
    return Sheet(path, columns, rows)


def _parsed(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_CELL)
    parsed = csv.reader((f"{line}\n" for _, line in readers.lines(path)), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, cells in enumerate(parsed, 1):
            if any(cell.strip() for cell in cells):
                yield number, cells
    except csv.Error as error:
        raise UserError(
            f"{place(path, number + 1)}: quotes do not match ({error}); quote whole cells and double the quotes within"
        ) from error


def _of_width(sheet: Sheet, width: int, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    name = {",": "a comma", "\t": "a tab"}[delimiter]
    for number, cells in sheet.rows:
        if len(cells) != width:
            raise UserError(
                f"{place(sheet.path, number)}: {len(cells)} cells where the header has {width}; "
                f"put text with {name} in quotes"
            )
        yield number, cells
