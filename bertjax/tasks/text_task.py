"""Tasks of one or two texts in tab-separated files: a declarative description of their files, and the reader."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertjax.errors import UserError, short_repr
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
    """The files of a task; they have no quoting, and their columns are found by the names in the header."""

    folders: tuple[str, ...]  # possible names of the folder with the files
    texts: tuple[str, ...]  # columns of the one or two texts
    files: Mapping[str, tuple[str, ...]] = field(default_factory=_FILES.copy)  # split → possible file names
    label: str = "label"  # column of the label
    labels: tuple[str, ...] = ()  # class names; (): regression
    codes: tuple[str, ...] = ()  # class names in the files, if different
    score: scores.Score = scores.accuracy
    metric: str = "accuracy"
    dev: tuple[str, ...] = ("dev",)
    test: tuple[str, ...] = ("test",)  # splits without labels
    index: str = "index"  # column of test files that submissions repeat
    headless: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # split without a header → column positions
    undecided: str | None = None  # label of examples that are skipped
    skip_short: bool = False  # skip labeled lines with missing cells
    # (folder, split) → the file in an alternative format
    original: Callable[[Path, str], line_formats.Sheet | None] | None = None
    in_tfds: bool = True  # TFDS has the task under the same name
    features: tuple[str, ...] = ()  # names of the texts in TFDS, if different

    def code(self, label: str) -> str:
        """Returns the name of a class in the files."""
        return self.codes[self.labels.index(label)] if self.codes else label


def open_text_task(spec: TextTask, name: str, data_dir: str, labels: Sequence[str] | None) -> TaskExamples[TextExample]:
    """Binds a task to its files or to TFDS.

    Args:
      spec: the task.
      name: name of the task.
      data_dir: the folder with the files or its parent, or tfds[:DIR].
      labels: class names in the order of a model's outputs; default: the task's order.

    Raises:
      UserError: the labels are not the task's.
    """
    if labels is not None and sorted(labels) != sorted(spec.labels):
        task_has = f"has the labels {', '.join(spec.labels)}" if spec.labels else "predicts a number"
        model_has = f"has the labels {', '.join(labels)}" if labels else "predicts a number"
        raise UserError(f"{name}: the task {task_has}, but the model {model_has}; use a model fine-tuned on this task")
    order = tuple(labels or spec.labels)

    def read(split: str) -> list[TextExample]:
        if split not in spec.files:
            raise UserError(f"{name}: no split {split}; use one of {', '.join(spec.files)}")
        if tfds.is_tfds(data_dir):
            return _read_tfds(spec, name, data_dir, split, order)
        return _read(spec, Path(data_dir), split, order)

    return TaskExamples(
        name=name,
        kind=Classification() if spec.labels else Regression(),
        labels=order,
        read=read,
        score=scores.label_score(scores.in_label_order(spec.score, order, spec.labels)),
        metric=spec.metric,
        dev=spec.dev,
        test=spec.test,
    )


def _read(spec: TextTask, data_dir: Path, split: str, order: tuple[str, ...]) -> list[TextExample]:
    sheet = _open(spec, data_dir, split)
    remedy = "use the task's original file"
    texts = [sheet.position(column, remedy) for column in spec.texts]
    label = None if split in spec.test else sheet.position(spec.label, remedy)
    index = sheet.columns.get(spec.index)
    classes = {spec.code(name): number for number, name in enumerate(order)}
    examples, short, undecided = [], 0, 0
    for where, cells in sheet.records:
        missing = max([*texts, label or 0]) + 1 - len(cells)
        if missing > 0 and label is not None and spec.skip_short:
            short += 1
            continue
        if missing > 0 and not spec.skip_short:
            raise UserError(
                f"{where}: {missing} cells missing at the end; download the file again, or restore it from a copy"
            )
        cells = [*cells, *[""] * missing]  # submissions need a prediction for every line of a test file
        if label is not None and spec.undecided is not None and cells[label] == spec.undecided:
            undecided += 1
            continue
        value = None if label is None else _label(cells[label], classes, where)
        identity = str(len(examples)) if index is None else cells[index]
        if split in spec.test and not _INDEX.fullmatch(identity):
            raise UserError(
                f"{where}: the index {short_repr(identity)} is not a number, but submissions need numbers; correct it"
            )
        examples.append(TextExample(identity, where, *(cells[position] for position in texts), label=value))
    if short or undecided:
        _LOG.info(f"{sheet.path}: skipped {short} lines with missing cells and {undecided} without an agreed label")
    if not examples:
        raise UserError(f"{sheet.path}: no examples; download the file again, or restore it from a copy")
    return examples


def _open(spec: TextTask, data_dir: Path, split: str) -> line_formats.Sheet:
    folders = [folder for name in spec.folders if (folder := data_dir / name).is_dir()] or [data_dir]
    if spec.original and not any((folder / name).is_file() for folder in folders for name in spec.files[split]):
        for folder in folders:
            if sheet := spec.original(folder, split):
                return sheet
    remedy = f"set data_dir to the folder {' or '.join(spec.folders)}, or to its parent"
    return line_formats.open_unquoted(
        line_formats.find_file(folders, spec.files[split], remedy), spec.headless.get(split)
    )


def _label(cell: str, classes: Mapping[str, int], where: str) -> int | float:
    if not classes:
        return table_records.finite_number(cell, where)
    if cell not in classes:
        raise UserError(f"{where}: label {short_repr(cell)} is none of {', '.join(classes)}; correct the label")
    return classes[cell]


def _read_tfds(spec: TextTask, name: str, data_dir: str, split: str, order: tuple[str, ...]) -> list[TextExample]:
    records, place = tfds.read(name if spec.in_tfds else "", split, data_dir)
    records = sorted(records, key=lambda record: int(record["idx"]))  # TFDS stores them shuffled
    return [
        TextExample(
            str(int(record["idx"])),
            f"{place}, example {int(record['idx'])}",
            *(record[feature].decode() for feature in spec.features or spec.texts),
            label=_tfds_label(spec, float(record["label"]), order) if split not in spec.test else None,
        )
        for record in records
    ]


def _tfds_label(spec: TextTask, label: float, order: tuple[str, ...]) -> int | float:
    return order.index(spec.labels[int(label)]) if order else label
