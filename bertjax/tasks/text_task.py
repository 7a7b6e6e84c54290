"""Tasks of one text or two in tab-separated files: what their files look like, said once, and one reader for all."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertjax.errors import UserError, shown
from bertjax.tasks import line_formats, scores, table_records, tfds
from bertjax.tasks.examples import TextExample
from bertjax.tasks.kinds.classification import Classification
from bertjax.tasks.kinds.regression import Regression
from bertjax.tasks.task_examples import TaskExamples

_LOG = logging.getLogger(__name__)

_INDEX = re.compile("[0-9]{1,18}")
_FILES = {split: (f"{split}.tsv",) for split in ("train", "dev", "test")}


@dataclass(frozen=True)
class TextTask:
    """The files of a task. Nothing in them is quoted; the columns are found by their names in the header."""

    folders: tuple[str, ...]  # what the folder with the files may be called
    texts: tuple[str, ...]  # columns of the one text or the two
    files: Mapping[str, tuple[str, ...]] = field(default_factory=_FILES.copy)  # split → possible names of its file
    label: str = "label"  # column
    labels: tuple[str, ...] = ()  # the classes; () where a number is predicted
    codes: tuple[str, ...] = ()  # what files call the classes, where that is something else
    score: scores.Score = scores.accuracy
    metric: str = "accuracy"
    dev: tuple[str, ...] = ("dev",)
    test: tuple[str, ...] = ("test",)  # splits whose labels are not known
    index: str = "index"  # column of test files that submissions repeat
    headless: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # split → positions, without a header
    undecided: str | None = None  # label of rows that are left out
    skip_short: bool = False  # whether labelled rows with cells missing are left out
    # (folder, split) → another format of the files
    original: Callable[[Path, str], line_formats.Sheet | None] | None = None
    in_tfds: bool = True  # whether TFDS has it too, under the task's name
    features: tuple[str, ...] = ()  # its names of the texts there, where they are not the columns'

    def code(self, label: str) -> str:
        """What files call a class."""
        return self.codes[self.labels.index(label)] if self.codes else label


def open_text_task(spec: TextTask, name: str, data_dir: str, labels: Sequence[str] | None) -> TaskExamples:
    """Binds a task to its files, or to TFDS.

    Args:
      spec: the task.
      name: of the task.
      data_dir: the folder with the files or the one above it, or tfds[:DIR].
      labels: the classes in a model's order; by default the task's.

    Raises:
      UserError: the labels are not the task's.
    """
    if labels is not None and sorted(labels) != sorted(spec.labels):
        raise UserError(
            f"{name} has the labels {', '.join(spec.labels) or '(none: a number)'}, the model "
            f"{', '.join(labels) or '(none: a number)'}; take a model that was fine-tuned on it"
        )
    order = tuple(labels or spec.labels)

    def read(split: str) -> list[TextExample]:
        if split not in spec.files:
            raise UserError(f"{name} has no {split}; it has {', '.join(spec.files)}")
        if tfds.named(data_dir):
            return _read_tfds(spec, name, data_dir, split, order)
        return _read(spec, Path(data_dir), split, order)

    return TaskExamples(
        name=name,
        kind=Classification() if spec.labels else Regression(),
        labels=order,
        read=read,
        score=scores.of_labels(scores.in_order(spec.score, order, spec.labels)),
        metric=spec.metric,
        dev=spec.dev,
        test=spec.test,
    )


def _read(spec: TextTask, data_dir: Path, split: str, order: tuple[str, ...]) -> list[TextExample]:
    sheet = _open(spec, data_dir, split)
    remedy = "is this the task's own file?"
    texts = [sheet.position(column, remedy) for column in spec.texts]
    label = None if split in spec.test else sheet.position(spec.label, remedy)
    index = sheet.columns.get(spec.index)
    classes = {spec.code(name): place for place, name in enumerate(order)}
    examples, short, undecided = [], 0, 0
    for where, cells in sheet.rows:
        missing = max([*texts, label or 0]) + 1 - len(cells)
        if missing > 0 and label is not None and spec.skip_short:
            short += 1
            continue
        if missing > 0 and not spec.skip_short:
            raise UserError(f"{where}: {missing} cells are missing at the end; get the file again")
        cells = [*cells, *[""] * missing]  # a test row gets a prediction all the same: submissions must be complete
        if label is not None and spec.undecided is not None and cells[label] == spec.undecided:
            undecided += 1
            continue
        value = None if label is None else _value(cells[label], classes, where)
        identity = str(len(examples)) if index is None else cells[index]
        if split in spec.test and not _INDEX.fullmatch(identity):
            raise UserError(
                f"{where}: the index {shown(identity)} is no number, as submissions need; put the row right"
            )
        examples.append(TextExample(identity, where, *(cells[at] for at in texts), label=value))
    if short or undecided:
        _LOG.info(f"{sheet.path}: left out {short} rows with cells missing and {undecided} without an agreed label")
    if not examples:
        raise UserError(f"{sheet.path}: there are no examples in it; get the file again")
    return examples


def _open(spec: TextTask, data_dir: Path, split: str) -> line_formats.Sheet:
    folders = [folder for name in spec.folders if (folder := data_dir / name).is_dir()] or [data_dir]
    if spec.original and not any((folder / name).is_file() for folder in folders for name in spec.files[split]):
        for folder in folders:
            if sheet := spec.original(folder, split):
                return sheet
    remedy = f"give the folder with {' or '.join(spec.folders)} in it, or that folder itself"
    return line_formats.unquoted(line_formats.find(folders, spec.files[split], remedy), spec.headless.get(split))


def _value(cell: str, classes: Mapping[str, int], where: str) -> int | float:
    if not classes:
        return table_records.number(cell, where)
    if cell not in classes:
        raise UserError(f"{where}: the label {shown(cell)} is none of {', '.join(classes)}; put the row right")
    return classes[cell]


def _read_tfds(spec: TextTask, name: str, data_dir: str, split: str, order: tuple[str, ...]) -> list[TextExample]:
    records, place = tfds.read(name if spec.in_tfds else "", split, data_dir)
    records = sorted(records, key=lambda record: int(record["idx"]))  # TFDS stores them shuffled
    return [
        TextExample(
            str(int(record["idx"])),
            f"{place}, example {int(record['idx'])}",
            *(record[feature].decode() for feature in spec.features or spec.texts),
            label=_tfds_value(spec, record["label"], order) if split not in spec.test else None,
        )
        for record in records
    ]


def _tfds_value(spec: TextTask, label: object, order: tuple[str, ...]) -> int | float:
    return order.index(spec.labels[int(label)]) if order else float(label)
