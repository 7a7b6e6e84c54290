"""Readers of files made of lines: TSV without quoting, CSV and TSV with quoting, plain lines, and columns of words.

Every record comes with its location for messages: "FILE, line N", or in files with quoting "FILE, row N". Both count
from 1 including the header. Rows are numbered as in spreadsheets: a line end within a cell does not start a new row.
"""

import collections
import csv
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertjax.errors import UserError, join_names, short_repr
from bertjax.text import readers

_MAX_BLOCK = 1 << 20  # lines


class MissingFileError(UserError):
    """The file of a split is missing; some callers can do without it."""


@dataclass(frozen=True)
class Sheet:
    """A file of cells; its records can be read once."""

    path: Path
    columns: Mapping[str, int]  # name → position
    records: Iterator[tuple[str, list[str]]]  # (location, cells)

    def position(self, column: str, remedy: str) -> int:
        """Returns the position of a column.

        Raises:
          UserError: there is no such column; the message lists the existing ones.
        """
        if column not in self.columns:
            names = join_names(map(short_repr, self.columns))
            raise UserError(f"{self.path}: no column {column!r} (found: {names}); {remedy}")
        return self.columns[column]


def open_unquoted(path: Path, columns: Mapping[str, int] | None = None) -> Sheet:
    """Opens a tab-separated file in which quotation marks are ordinary characters.

    Skips blank lines. `columns` gives the positions of the columns if the file has no header.
    """
    records = ((where, line.split("\t")) for where, line in nonblank_lines(path))
    if columns is None:
        columns = {name: position for position, name in enumerate(_header(path, records))}
    return Sheet(path, columns, records)


def open_quoted(path: Path, delimiter: str) -> Sheet:
    """Opens a CSV or TSV file with a header; quoted cells may contain the delimiter, line ends and doubled quotes.

    Raises:
      UserError: two columns have the same name; while the records are read also: unbalanced quotes, rows longer or
        shorter than the header, or with more than `readers.MAX_LINE` characters.
    """
    rows = _parsed(path, delimiter)
    names = _header(path, rows)
    for name, count in collections.Counter(names).items():
        if name and count > 1:
            raise UserError(f"{path}: {count} columns are named {short_repr(name)}; rename all but one")
    columns = {name: position for position, name in enumerate(names)}
    return Sheet(path, columns, _check_width(rows, len(names), delimiter))


def nonblank_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (location, line) for each line that is not blank."""
    return ((where, line) for where, line in _lines(path) if line.strip())


def line_blocks(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Yields the runs of (location, line) between blank lines.

    Raises:
      UserError: a run is far too long to be a sentence.
    """
    for blank, block in itertools.groupby(_lines(path), lambda line: not line[1].strip()):
        if not blank:
            lines = list(itertools.islice(block, _MAX_BLOCK + 1))
            if len(lines) > _MAX_BLOCK:
                raise UserError(
                    f"{lines[0][0]}: a sentence has more than {_MAX_BLOCK:,} lines; separate sentences by blank lines"
                )
            yield lines


def split_columns(line: str) -> list[str]:
    """Splits a line at tabs and spaces; other white space, as in "5\u00a0000", belongs to words."""
    return re.findall("[^ \t]+", line.rstrip("\r"))


def find_file(
    folders: Sequence[Path], names: Sequence[str], remedy: str = "set data_dir to the folder that contains it"
) -> Path:
    """Returns the first existing file among `names`, which may be patterns, with or without .gz, in `folders`.

    Raises:
      MissingFileError: there is no such file.
      UserError: several files match a pattern.
    """
    for folder in folders:
        for name in names:
            paths = sorted(folder.glob(name)) or sorted(folder.glob(f"{name}.gz"))
            if len(paths) > 1:
                several = ", ".join(path.name for path in paths)
                raise UserError(
                    f"{folder}: several files match {name} ({several}); keep one, or name one in config.table"
                )
            if paths:
                return paths[0]
    where = " or ".join(map(str, folders))
    raise MissingFileError(f"{where}: no file {' or '.join(names)}; {remedy}")


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    name = str(path)
    return ((f"{name}, line {number}", line) for number, line in readers.lines(path))


def _header(path: Path, records: Iterator[tuple[str, list[str]]]) -> list[str]:
    first = next(records, None)
    if first is None:
        raise UserError(f"{path}: the file is empty; write a header and examples into it")
    return [name.strip() for name in first[1]]


def _parsed(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    csv.field_size_limit(readers.MAX_LINE + 1)  # characters; the default is 131,072
    name, number, size = str(path), 0, 0

    def lines() -> Iterator[str]:
        nonlocal size
        for _, line in readers.lines(path):
            size += len(line) + 1
            if size > readers.MAX_LINE:
                raise UserError(
                    f"{name}, row {number + 1}: more than {readers.MAX_LINE:,} characters; check for an unclosed "
                    "quotation mark"
                )
            yield f"{line}\n"

    try:
        for number, cells in enumerate(csv.reader(lines(), delimiter=delimiter, strict=True), 1):
            size = 0
            if any(cell.strip() for cell in cells):
                yield f"{name}, row {number}", cells
    except csv.Error as error:
        raise UserError(
            f"{name}, row {number + 1}: unbalanced quotes ({error}); put quotes around the whole cell and write each "
            "quote inside it twice"
        ) from error


def _check_width(rows: Iterator[tuple[str, list[str]]], width: int, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    name = {",": "commas", "\t": "tabs"}[delimiter]
    for where, cells in rows:
        if len(cells) != width:
            raise UserError(f"{where}: {len(cells)} cells, but the header has {width}; quote cells that contain {name}")
        yield where, cells
