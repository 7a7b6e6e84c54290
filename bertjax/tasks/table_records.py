"""The cells of a user's own table, checked; each kind of task makes its examples of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertjax.errors import UserError
from bertjax.tasks.examples import TextExample
from bertjax.text import readers


@dataclass(frozen=True)
class Record:
    """A row: its cells under the wanted columns, None where there are none."""

    where: str
    text: Any
    second: Any
    label: Any


def text(value: Any, what: str, where: str) -> str:
    """A text that is not empty.

    Raises:
      UserError: it is none; says `what` it should be.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: {what} is {type(value).__name__}, not text; put the row right")
    if not value.strip():
        raise UserError(f"{where}: {what} is empty; give the row a text, or take it out")
    return readers.valid(value, where)


def text_example(identity: str, record: Record, label: Any) -> TextExample:
    """The example of a row with one text or two."""
    second = None if record.second is None else text(record.second, "the second text", record.where)
    return TextExample(identity, record.where, text(record.text, "the text", record.where), second, label)


def words(value: Any, where: str) -> list[Any]:
    """The words of a list or a text.

    Raises:
      UserError: it is neither.
    """
    if not isinstance(value, list | str):
        raise UserError(f"{where}: {type(value).__name__}, neither a text nor a list of words; put the row right")
    return value if isinstance(value, list) else value.split()


def class_name(label: Any, where: str) -> str:
    """The name of a class.

    Raises:
      UserError: there is none.
    """
    if isinstance(label, str) and label.strip():
        return label.strip()
    if isinstance(label, (bool, int, float)):
        return json.dumps(label)
    raise UserError(f"{where}: there is no label ({label!r}); give the row one, or take it out")


def class_numbers(labels: Sequence[str], numbers: Mapping[str, int], where: str) -> list[int]:
    """The numbers of a row's classes.

    Raises:
      UserError: a label that is not known.
    """
    for label in labels:
        if label not in numbers:
            shown = ", ".join(list(numbers)[:20]) + (", …" if len(numbers) > 20 else "")
            raise UserError(f"{where}: unknown label {label!r}; those that are known: {shown}")
    return [numbers[label] for label in labels]


def number(cell: object, where: str) -> float:
    """A finite number.

    Raises:
      UserError: it is none.
    """
    try:
        value = float(cell)
    except (TypeError, ValueError):
        value = float("nan")
    if not float("-inf") < value < float("inf"):
        raise UserError(f"{where}: the label {cell!r} is no finite number; put the row right, or take it out")
    return value
