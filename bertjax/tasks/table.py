"""The user's own data: files with named columns."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertjax.config.finetuning import Table
from bertjax.errors import UserError
from bertjax.tasks import line_formats, scores
from bertjax.tasks.examples import ChoiceExample, Task, TextExample, WordsExample
from bertjax.tasks.text_task import number
from bertjax.text import readers

COLUMNS = ("text", "second", "negative", "label")  # the fields of Table that name one
SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".conll")


@dataclass(frozen=True)
class _Record:
    """A row: its cells under the wanted columns, None where there are none."""

    where: str
    text: Any
    second: Any
    label: Any


def open_table(kind: str, data_dir: str, table: Table | None, labels: Sequence[str] | None) -> Task:
    """A task of a kind of task.py on the user's files, which lie in `data_dir`.

    `labels` are by default collected from the training file and sorted, as numbers where all are.

    Raises:
      UserError: what is wrong with the files' names or with the labels.
    """
    if table is None or not (table.train or table.dev or table.test):
        raise UserError(f"table/{kind} needs to know its files; give table.train and table.dev, or to evaluate --dev")
    if kind == "retrieval":
        if not table.second:
            raise UserError("table/retrieval finds the text of a second column; give table.second")
        table = replace(table, label=table.negative)  # which is what its third column holds
    parse = _PARSERS[kind]

    def records(split: str) -> Iterator[_Record]:
        name = getattr(table, split)
        if not name:
            raise UserError(f"table/{kind}: there is no file for {split}; give table.{split}")
        labelled = bool(table.negative) if kind == "retrieval" else split != "test"
        return _records(Path(data_dir) / name, table, tagging=kind == "tagging", labelled=labelled)

    order = () if kind in ("regression", "retrieval") else tuple(labels or _collect(kind, records("train")))
    positions = {label: place for place, label in enumerate(order)}

    # A test file may have a column for labels and nothing in it.
    scored = bool(table.test) and (
        kind == "retrieval" or any(record.label not in (None, "") for record in records("test"))
    )

    def read(split: str) -> list[Any]:
        found = records(split)
        if split == "test" and kind != "retrieval":
            found = (_labelled(kind, one) for one in found) if scored else (replace(one, label=None) for one in found)
        examples = [parse(str(place), record, positions) for place, record in enumerate(found)]
        if not examples:
            raise UserError(f"{Path(data_dir) / getattr(table, split)}: there are no examples in it; add some")
        return examples

    score, metric = _score(kind, order)
    return Task(
        name=f"table/{kind}",
        kind=kind,
        labels=order,
        read=read,
        score=score,
        metric=metric,
        dev=(*(("dev",) if table.dev else ()), *(("test",) if scored else ())),
        test=("test",) if table.test and not scored else (),
        choices=(3 if table.negative else 2) if kind == "retrieval" else 1,
    )


def _labelled(kind: str, record: _Record) -> _Record:
    # A row of several classes may also have none of them.
    if record.label is None or (record.label == "" and kind != "multi_label"):
        raise UserError(f"{record.where}: there is no label, while other rows have one; give it one, or none to all")
    return record


def _score(kind: str, labels: tuple[str, ...]) -> tuple[scores.Score, str]:
    if kind == "tagging":
        entities = all(label == "O" or label[:2] in ("B-", "I-") for label in labels)
        return scores.word_labels(labels, entities), "f1" if entities else "accuracy"
    if kind == "retrieval":
        return scores.ranks, "mrr"
    score, metric = {
        "classification": (scores.accuracy_and_macro_f1, "accuracy"),
        "multi_label": (scores.label_sets(len(labels)), "f1_micro"),
        "regression": (scores.correlations, "pearson"),
    }[kind]
    return scores.of_labels(score), metric


def _collect(kind: str, records: Iterator[_Record]) -> list[str]:
    found = {label for record in records for label in _labels(kind, record) or ()}
    if len(found) < (1 if kind == "multi_label" else 2):
        raise UserError(
            f"table/{kind}: the training file has {len(found)} different labels, too few to learn; check table.label"
        )
    try:
        numbers = {label: float(label) for label in found}
    except ValueError:
        return sorted(found)
    if not all(map(math.isfinite, numbers.values())):  # "nan" is a name that compares with nothing
        return sorted(found)
    return sorted(found, key=lambda label: (numbers[label], label))


def _labels(kind: str, record: _Record) -> list[str] | None:
    """A row's labels, one where the kind has one; None where the file has none."""
    if record.label is None:
        return None
    if kind == "classification":
        return [_name(record.label, record.where)]
    if kind == "tagging":
        return [_name(label, record.where) for label in _words(record.label, record.where)]
    value = record.label
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{record.where}: the labels are no JSON list ({error}); put the row right") from error
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|") if part.strip()]
    return [_name(label, record.where) for label in (value if isinstance(value, list) else [value])]


def _name(label: Any, where: str) -> str:
    if isinstance(label, str) and label.strip():
        return label.strip()
    if isinstance(label, (bool, int, float)):
        return json.dumps(label)
    raise UserError(f"{where}: there is no label ({label!r}); give the row one, or take it out")


def _words(value: Any, where: str) -> list[Any]:
    """Of a list or a text."""
    if not isinstance(value, list | str):
        raise UserError(f"{where}: {type(value).__name__}, neither a text nor a list of words; put the row right")
    return value if isinstance(value, list) else value.split()


def _places(kind: str, record: _Record, positions: dict[str, int]) -> list[int] | None:
    labels = _labels(kind, record)
    for label in labels or ():
        if label not in positions:
            shown = ", ".join(list(positions)[:20]) + (", …" if len(positions) > 20 else "")
            raise UserError(f"{record.where}: unknown label {label!r}; those that are known: {shown}")
    return None if labels is None else [positions[label] for label in labels]


def _text(value: Any, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {what} is {type(value).__name__}, not text; put the row right")
    if not value.strip():
        raise UserError(f"{where}: {what} is empty; give the row a text, or take it out")
    return readers.valid(value, where)


def _example(identity: str, record: _Record, label: Any) -> TextExample:
    second = None if record.second is None else _text(record.second, "the second text", record.where)
    return TextExample(identity, record.where, _text(record.text, "the text", record.where), second, label)


def _classification(identity: str, record: _Record, positions: dict[str, int]) -> TextExample:
    places = _places("classification", record, positions)
    return _example(identity, record, places and places[0])


def _multi_label(identity: str, record: _Record, positions: dict[str, int]) -> TextExample:
    places = _places("multi_label", record, positions)
    return _example(identity, record, None if places is None else tuple(sorted(set(places))))


def _regression(identity: str, record: _Record, positions: dict[str, int]) -> TextExample:
    return _example(identity, record, None if record.label is None else number(record.label, record.where))


def _tagging(identity: str, record: _Record, positions: dict[str, int]) -> WordsExample:
    words = tuple(_text(word, "a word", record.where) for word in _words(record.text, record.where))
    if not words:
        raise UserError(f"{record.where}: there are no words; give the row some, or take it out")
    places = _places("tagging", record, positions)
    if places is not None and len(places) != len(words):
        raise UserError(f"{record.where}: {len(words)} words but {len(places)} labels; put the row right")
    return WordsExample(identity, record.where, words, None if places is None else tuple(places))


def _retrieval(identity: str, record: _Record, positions: dict[str, int]) -> ChoiceExample:
    found = [_text(record.second, "the second text", record.where)]
    if record.label is not None:
        found.append(_text(record.label, "the negative text", record.where))
    return ChoiceExample(identity, record.where, _text(record.text, "the text", record.where), tuple(found), 0)


_PARSERS: dict[str, Callable[[str, _Record, dict[str, int]], Any]] = {
    "classification": _classification,
    "multi_label": _multi_label,
    "regression": _regression,
    "tagging": _tagging,
    "retrieval": _retrieval,
}


def _records(path: Path, table: Table, tagging: bool, labelled: bool) -> Iterator[_Record]:
    """A file's rows. Only where it need not be `labelled` may the column of the label be missing."""
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix in (".txt", ".conll") and tagging:
        return _columns(path, labelled)
    if suffix == ".jsonl":
        return _objects(path, table, labelled)
    if suffix in (".csv", ".tsv"):
        return _cells(path, "," if suffix == ".csv" else "\t", table, labelled)
    raise UserError(f"{path}: unknown kind of file; give one of {' '.join(SUFFIXES if tagging else SUFFIXES[:3])}")


def _remedy(table: Table, column: str) -> str:
    name = next(field for field in COLUMNS if getattr(table, field) == column)
    return f"give table.{name}, or to evaluate --{name}"


def _cells(path: Path, delimiter: str, table: Table, labelled: bool) -> Iterator[_Record]:
    sheet = line_formats.quoted(path, delimiter)

    def position(column: str) -> int:
        return sheet.position(column, _remedy(table, column))

    text, second = position(table.text), position(table.second) if table.second else None
    label = position(table.label) if labelled or (table.label and table.label in sheet.columns) else None
    for row, cells in sheet.rows:
        values = [None if at is None else cells[at] for at in (text, second, label)]
        yield _Record(line_formats.place(path, row), *values)


def _objects(path: Path, table: Table, labelled: bool) -> Iterator[_Record]:
    for row, record in line_formats.json_lines(path):
        where = line_formats.place(path, row)
        for field in ("text", *(("second",) if table.second else ()), *(("label",) if labelled else ())):
            if (column := getattr(table, field)) not in record:
                found = ", ".join(map(repr, record))
                raise UserError(f"{where}: no field {column!r} (found: {found}); {_remedy(table, column)}")
        label = record.get(table.label) if table.label else None
        if labelled and label is None:  # null, which is none of the labels
            label = ""
        yield _Record(where, record[table.text], record[table.second] if table.second else None, label)


def _columns(path: Path, labelled: bool) -> Iterator[_Record]:
    """A word a line, its label last; blank lines between sentences. One column only: there are no labels."""
    for block in line_formats.blocks(path):
        cells = [(row, line_formats.columns(line)) for row, line in block if not line.startswith("-DOCSTART-")]
        if not cells:
            continue
        width = len(cells[0][1])
        for row, line in cells:
            if len(line) != width or (labelled and width < 2):
                expected = max(width, 2) if labelled else width
                raise UserError(
                    f"{line_formats.place(path, row)}: {len(line)} columns instead of {expected}; put the row right"
                )
        yield _Record(
            line_formats.place(path, cells[0][0]),
            [line[0] for _, line in cells],
            None,
            [line[-1] for _, line in cells] if width > 1 else None,
        )
