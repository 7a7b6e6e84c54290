"""The cells of a user's own table, checked; each kind of task makes its examples of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertjax.errors import UserError, listed, shown
from bertjax.tasks.examples import TextExample

Label = str | bool | int | float


@dataclass(frozen=True)
class Record:
    """A row: its cells under the wanted columns, None where there are none; the types are those of the kind of task."""

    where: str
    text: str | list[str]
    second: str | None
    label: Label | list[Label] | None


def text(value: str, what: str, where: str) -> str:
    """A text that is not empty.

    Raises:
      UserError: it is empty; says `what` it should be.
    """
    if not value.strip():
        raise UserError(f"{where}: {what} is empty; give the row a text, or take it out")
    return value


def text_example(identity: str, record: Record, label: Any) -> TextExample:
    """The example of a row with one text or two."""
    second = None if record.second is None else text(record.second, "the second text", record.where)
    return TextExample(identity, record.where, text(record.text, "the text", record.where), second, label)


def words(value: Any) -> list[Any]:
    """The words of a list or a text."""
    return value.split() if isinstance(value, str) else value


def class_name(label: Label, where: str) -> str:
    """The name of a class.

    Raises:
      UserError: there is none.
    """
    name = label.strip() if isinstance(label, str) else json.dumps(label)
    if not name:
        raise UserError(f"{where}: there is no label ({label!r}); give the row one, or take it out")
    return name


def class_numbers(labels: Sequence[str], numbers: Mapping[str, int], where: str) -> list[int]:
    """The numbers of a row's classes.

    Raises:
      UserError: a label that is not known.
    """
    for label in labels:
        if label not in numbers:
            raise UserError(f"{where}: unknown label {shown(label)}; those that are known: {listed(numbers)}")
    return [numbers[label] for label in labels]


def number(cell: Label, where: str) -> float:
    """A finite number.

    Raises:
      UserError: it is none.
    """
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        value = float("nan")
    if not float("-inf") < value < float("inf"):
        raise UserError(f"{where}: the label {shown(cell)} is no finite number; put the row right, or take it out")
    return value
