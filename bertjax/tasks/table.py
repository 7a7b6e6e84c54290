"""Tasks on the user's own data: files with named columns."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from bertjax import decoding
from bertjax.config.finetuning import TableConfig
from bertjax.decoding import ShortText
from bertjax.errors import UserError, join_names, short_repr
from bertjax.tasks import line_formats
from bertjax.tasks.examples import Example
from bertjax.tasks.kinds.base import TaskKind
from bertjax.tasks.table_records import LabelCell, TableRecord
from bertjax.tasks.task_examples import TaskExamples

COLUMNS = ("text", "second", "negative", "label")  # fields of TableConfig that name a column
SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".conll")

_REMEDY = "correct the line"


def open_table(kind: TaskKind, data_dir: str, table: TableConfig | None, labels: Sequence[str] | None) -> TaskExamples:
    """Binds the task of a kind to the user's files in `data_dir`.

    By default the labels are those of the training file in sorted order, numerically if all are numbers.

    Raises:
      UserError: file names are missing, or the labels are invalid.
    """
    name = f"table/{kind.name}"
    if table is None or not (table.train or table.dev or table.test):
        raise UserError(f"{name}: no files; set table.train and table.dev, or pass --dev to evaluate")
    table = kind.table_columns(table)

    def records(split: str) -> Iterator[TableRecord]:
        file = getattr(table, split)
        if not file:
            raise UserError(f"{name}: no file for {split}; set table.{split}")
        labeled = split != "test" if kind.has_labels else bool(table.label)
        return _records(Path(data_dir) / file, table, kind, labeled)

    order = tuple(labels or _collect(kind, records("train"), Path(data_dir) / table.train)) if kind.has_classes else ()
    numbers = {label: number for number, label in enumerate(order)}

    # The label column of a test file may be empty.
    score_test = bool(table.test) and (
        not kind.has_labels or any(record.label not in (None, "") for record in records("test"))
    )

    def read(split: str) -> list[Example]:
        split_records = records(split)
        if split == "test" and kind.has_labels:
            if score_test:
                split_records = (_check_label(kind, record) for record in split_records)
            else:
                split_records = (replace(record, label=None) for record in split_records)
        examples = [kind.table_example(str(index), record, numbers) for index, record in enumerate(split_records)]
        if not examples:
            raise UserError(f"{Path(data_dir) / getattr(table, split)}: no examples; add some")
        return examples

    score, metric = kind.default_score(order)
    return TaskExamples(
        name=name,
        kind=kind,
        labels=order,
        read=read,
        score=score,
        metric=metric,
        dev=(*(("dev",) if table.dev else ()), *(("test",) if score_test else ())),
        test=("test",) if table.test and not score_test else (),
        choices=kind.texts_per_example(table),
    )


def _check_label(kind: TaskKind, record: TableRecord) -> TableRecord:
    # A set of labels may be empty.
    if record.label is None or (record.label == "" and kind.exclusive):
        raise UserError(f"{record.where}: no label, but other examples have one; label all examples or none")
    return record


def _collect(kind: TaskKind, records: Iterator[TableRecord], file: Path) -> list[str]:
    labels: set[str] = set()
    for record in records:
        for label in kind.table_classes(record):
            if label not in labels:
                where = f"{record.where}, the label"
                decoding.convert(label, ShortText, where, "shorten it")  # pyright: ignore[reportArgumentType]  # Annotated
                labels.add(label)
    if len(labels) < (2 if kind.exclusive else 1):
        raise UserError(f"{file}: {len(labels)} distinct labels are too few to train on; check table.label")
    with contextlib.suppress(ValueError):
        numbers = {label: float(label) for label in labels}
        if all(map(math.isfinite, numbers.values())):  # "nan" cannot be sorted as a number
            return sorted(labels, key=lambda label: (numbers[label], label))
    return sorted(labels)


def _records(path: Path, table: TableConfig, kind: TaskKind, labeled: bool) -> Iterator[TableRecord]:
    """Returns the records of a file; the label column may be missing unless `labeled`."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix in (".txt", ".conll") and kind.label_per_token:
        return _word_columns(path, labeled)
    if suffix == ".jsonl":
        return _objects(path, table, kind, labeled)
    if suffix in (".csv", ".tsv"):
        return _cells(path, "," if suffix == ".csv" else "\t", table, labeled)
    suffixes = SUFFIXES if kind.label_per_token else SUFFIXES[:3]
    raise UserError(f"{path}: unknown file format; use one of {' '.join(suffixes)}")


def _column_remedy(table: TableConfig, column: str) -> str:
    name = next(field for field in COLUMNS if getattr(table, field) == column)
    return f"set table.{name}, or pass --{name} to evaluate"


def _cells(path: Path, delimiter: str, table: TableConfig, labeled: bool) -> Iterator[TableRecord]:
    sheet = line_formats.open_quoted(path, delimiter)

    def position(column: str) -> int:
        return sheet.position(column, _column_remedy(table, column))

    text, text_pair = position(table.text), position(table.second) if table.second else None
    label = position(table.label) if labeled or (table.label and table.label in sheet.columns) else None
    for where, cells in sheet.records:
        yield TableRecord(
            where,
            cells[text],
            None if text_pair is None else cells[text_pair],
            None if label is None else cells[label],
        )


def _objects(path: Path, table: TableConfig, kind: TaskKind, labeled: bool) -> Iterator[TableRecord]:
    types = {"text": kind.table_text_type, "second": str, "label": kind.table_label_type | None}
    fields: dict[str, str] = {}  # column → the field it is decoded as; one column may be both texts
    for field in types:
        fields.setdefault(getattr(table, field), field)
    schema = decoding.columns_type({field: (column, types[field]) for column, field in fields.items() if column})
    pair_field, label_field = (column and fields[column] for column in (table.second, table.label))
    for where, line in line_formats.nonblank_lines(path):
        cells = decoding.decode(line, schema, where, _REMEDY)
        text_pair = getattr(cells, pair_field) if pair_field else None
        label = getattr(cells, label_field) if label_field else None
        is_missing = label is msgspec.UNSET
        if is_missing and not labeled:
            label = None
        elif label is None and labeled:  # null is not a label
            label = ""
        for column, cell in ((table.text, cells.text), (table.second, text_pair), (table.label, label)):
            if cell is msgspec.UNSET:
                values = decoding.convert(decoding.parse(line, where, _REMEDY), dict[str, object], where, _REMEDY)
                names = join_names(map(short_repr, values))
                raise UserError(f"{where}: no field {column!r} (found: {names}); {_column_remedy(table, column)}")
        yield TableRecord(where, cells.text, text_pair, label)


def _word_columns(path: Path, labeled: bool) -> Iterator[TableRecord]:
    """Yields sentences of one word per line, separated by blank lines; the last of several columns is the label."""
    for block in line_formats.line_blocks(path):
        cells = [
            (where, line_formats.split_columns(line)) for where, line in block if not line.startswith("-DOCSTART-")
        ]
        if not cells:
            continue
        width = len(cells[0][1])
        for where, line in cells:
            if len(line) != width or (labeled and width < 2):
                expected = max(width, 2) if labeled else width
                raise UserError(f"{where}: {len(line)} columns instead of {expected}; {_REMEDY}")
        labels: list[LabelCell] | None = [line[-1] for _, line in cells] if width > 1 else None
        yield TableRecord(cells[0][0], [line[0] for _, line in cells], None, labels)
