"""The user's own data: files with named columns."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from bertjax import decoding
from bertjax.config.finetuning import Table
from bertjax.decoding import ShortText
from bertjax.errors import UserError, listed, shown
from bertjax.tasks import line_formats
from bertjax.tasks.kinds.base import TaskKind
from bertjax.tasks.table_records import Record
from bertjax.tasks.task_examples import TaskExamples

COLUMNS = ("text", "second", "negative", "label")  # the fields of Table that name one
_CURE = "put the row right"
SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".conll")


def open_table(kind: TaskKind, data_dir: str, table: Table | None, labels: Sequence[str] | None) -> TaskExamples:
    """A task of a kind on the user's files, which lie in `data_dir`.

    `labels` are by default collected from the training file and sorted, as numbers where all are.

    Raises:
      UserError: what is wrong with the files' names or with the labels.
    """
    name = f"table/{kind.name}"
    if table is None or not (table.train or table.dev or table.test):
        raise UserError(f"{name} needs to know its files; give table.train and table.dev, or to evaluate --dev")
    table = kind.table_columns(table)

    def records(split: str) -> Iterator[Record]:
        file = getattr(table, split)
        if not file:
            raise UserError(f"{name}: there is no file for {split}; give table.{split}")
        labelled = split != "test" if kind.has_labels else bool(table.label)
        return _records(Path(data_dir) / file, table, kind, labelled)

    order = tuple(labels or _collect(kind, records("train"), Path(data_dir) / table.train)) if kind.has_classes else ()
    numbers = {label: number for number, label in enumerate(order)}

    # A test file may have a column for labels and nothing in it.
    scored = bool(table.test) and (
        not kind.has_labels or any(record.label not in (None, "") for record in records("test"))
    )

    def read(split: str) -> list[Any]:
        found = records(split)
        if split == "test" and kind.has_labels:
            found = (_labelled(kind, one) for one in found) if scored else (replace(one, label=None) for one in found)
        examples = [kind.table_example(str(number), record, numbers) for number, record in enumerate(found)]
        if not examples:
            raise UserError(f"{Path(data_dir) / getattr(table, split)}: there are no examples in it; add some")
        return examples

    score, metric = kind.default_score(order)
    return TaskExamples(
        name=name,
        kind=kind,
        labels=order,
        read=read,
        score=score,
        metric=metric,
        dev=(*(("dev",) if table.dev else ()), *(("test",) if scored else ())),
        test=("test",) if table.test and not scored else (),
        choices=kind.table_texts(table),
    )


def _labelled(kind: TaskKind, record: Record) -> Record:
    # A row of several classes may also have none of them.
    if record.label is None or (record.label == "" and kind.exclusive):
        raise UserError(f"{record.where}: there is no label, while other rows have one; give it one, or none to all")
    return record


def _collect(kind: TaskKind, records: Iterator[Record], file: Path) -> list[str]:
    found: set[str] = set()
    for record in records:
        for label in kind.table_classes(record):
            if label not in found:
                found.add(decoding.convert(label, ShortText, f"{record.where}, the label", "give it a shorter name"))
    if len(found) < (2 if kind.exclusive else 1):
        raise UserError(
            f"{file}: the training file has {len(found)} different labels, too few to learn; check table.label"
        )
    with contextlib.suppress(ValueError):
        numbers = {label: float(label) for label in found}
        if all(map(math.isfinite, numbers.values())):  # "nan" is a name that compares with nothing
            return sorted(found, key=lambda label: (numbers[label], label))
    return sorted(found)


def _records(path: Path, table: Table, kind: TaskKind, labelled: bool) -> Iterator[Record]:
    """A file's rows. Only where it need not be `labelled` may the column of the label be missing."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix in (".txt", ".conll") and kind.label_per_token:
        return _columns(path, labelled)
    if suffix == ".jsonl":
        return _objects(path, table, kind, labelled)
    if suffix in (".csv", ".tsv"):
        return _cells(path, "," if suffix == ".csv" else "\t", table, labelled)
    suffixes = SUFFIXES if kind.label_per_token else SUFFIXES[:3]
    raise UserError(f"{path}: unknown kind of file; give one of {' '.join(suffixes)}")


def _remedy(table: Table, column: str) -> str:
    name = next(field for field in COLUMNS if getattr(table, field) == column)
    return f"give table.{name}, or to evaluate --{name}"


def _cells(path: Path, delimiter: str, table: Table, labelled: bool) -> Iterator[Record]:
    sheet = line_formats.quoted(path, delimiter)

    def position(column: str) -> int:
        return sheet.position(column, _remedy(table, column))

    text, second = position(table.text), position(table.second) if table.second else None
    label = position(table.label) if labelled or (table.label and table.label in sheet.columns) else None
    for where, cells in sheet.rows:
        yield Record(where, *(None if at is None else cells[at] for at in (text, second, label)))


def _objects(path: Path, table: Table, kind: TaskKind, labelled: bool) -> Iterator[Record]:
    types = {"text": kind.table_text_type, "second": str, "label": kind.table_label_type | None}
    fields: dict[str, str] = {}  # column → what it is read as: a column may be both texts
    for field in types:
        fields.setdefault(getattr(table, field), field)
    schema = decoding.columns_type({field: (column, types[field]) for column, field in fields.items() if column})
    second_field, label_field = (column and fields[column] for column in (table.second, table.label))
    for where, line in line_formats.filled(path):
        row = decoding.decode(line, schema, where, _CURE)
        second = getattr(row, second_field) if second_field else None
        label = getattr(row, label_field) if label_field else None
        if label is msgspec.UNSET and not labelled:
            label = None
        elif label is None and labelled:  # null, which is none of the labels
            label = ""
        for column, cell in ((table.text, row.text), (table.second, second), (table.label, label)):
            if cell is msgspec.UNSET:
                found = listed(map(shown, decoding.parse(line, where, _CURE)))
                raise UserError(f"{where}: no field {column!r} (found: {found}); {_remedy(table, column)}")
        yield Record(where, row.text, second, label)


def _columns(path: Path, labelled: bool) -> Iterator[Record]:
    """A word a line, its label last; blank lines between sentences. One column only: there are no labels."""
    for block in line_formats.blocks(path):
        cells = [(where, line_formats.columns(line)) for where, line in block if not line.startswith("-DOCSTART-")]
        if not cells:
            continue
        width = len(cells[0][1])
        for where, line in cells:
            if len(line) != width or (labelled and width < 2):
                expected = max(width, 2) if labelled else width
                raise UserError(f"{where}: {len(line)} columns instead of {expected}; put the row right")
        labels = [line[-1] for _, line in cells] if width > 1 else None
        yield Record(cells[0][0], [line[0] for _, line in cells], None, labels)
