"""Validated cells of the user's tables, from which the kinds make examples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bertjax.errors import UserError, join_names, short_repr
from bertjax.tasks.examples import Label, TextExample

LabelCell: TypeAlias = str | bool | int | float


@dataclass(frozen=True)
class TableRecord:
    """The cells of an example, None where the table has none; their types are those of the kind.

    Attributes:
      where: file and place, for messages.
      text: the text; tagging: the words, or a text that is split at white space.
      text_pair: the second text.
      label: the label, or the labels of words; retrieval: the hard negative.
    """

    where: str
    text: str | list[str]
    text_pair: str | None
    label: LabelCell | list[LabelCell] | None


def required_text(value: object, name: str, where: str) -> str:
    """Returns a text.

    Raises:
      UserError: the text is empty; the message calls it `name`.
    """
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name} is empty; fill it in or remove the example")
    return value


def text_example(identity: str, record: TableRecord, label: Label | None) -> TextExample:
    """Returns the example for a record with one or two texts."""
    text_pair = None if record.text_pair is None else required_text(record.text_pair, "the second text", record.where)
    text = required_text(record.text, "the text", record.where)
    return TextExample(identity, record.where, text, text_pair, label)


def words(value: object) -> Sequence[object]:
    """Returns the words of a list or a text."""
    if isinstance(value, list):
        return value
    return str(value).split()


def class_name(label: object, where: str) -> str:
    """Returns the class name in a cell; values of JSON are written as JSON.

    Raises:
      UserError: the cell is empty.
    """
    name = label.strip() if isinstance(label, str) else json.dumps(label)
    if not name:
        raise UserError(f"{where}: no label ({label!r}); add one or remove the example")
    return name


def class_numbers(labels: Sequence[str], numbers: Mapping[str, int], where: str) -> list[int]:
    """Returns the class indices of labels.

    Raises:
      UserError: a label is unknown.
    """
    for label in labels:
        if label not in numbers:
            raise UserError(f"{where}: unknown label {short_repr(label)}; use one of {join_names(numbers)}")
    return [numbers[label] for label in labels]


def finite_number(cell: object, where: str) -> float:
    """Returns the number in a cell.

    Raises:
      UserError: the cell is not a finite number.
    """
    try:
        value = float(cell) if isinstance(cell, str | int | float) else float("nan")
    except (ValueError, OverflowError):
        value = float("nan")
    if not float("-inf") < value < float("inf"):
        raise UserError(f"{where}: label {short_repr(cell)} is not a finite number; correct it or remove the example")
    return value
