"""Conversion of user inputs (texts, pairs, lists of words, JSON objects) to examples, and of predictions to records."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar

from bertjax.errors import UserError
from bertjax.tasks.examples import TextExample
from bertjax.tasks.user_io import read_text

E = TypeVar("E")

Record: TypeAlias = dict[str, object]  # the inputs and the prediction of an example, serializable as JSON

# Fields of examples that records repeat. Passages are too long to repeat.
_INPUT_FIELDS = ("text", "text_pair", "question", "words", "choices")


def read_inputs(
    read: Callable[[object, str], E], inputs: Sequence[object], where: Sequence[str] | None = None
) -> list[E]:
    """Converts inputs to examples.

    Args:
      read: (input, its location) → example.
      inputs: the inputs of a user.
      where: their locations for error messages; default: their numbers.

    Raises:
      UserError: an input is invalid.
    """
    if isinstance(inputs, str):
        raise UserError("the input is a single text; give a list of texts")
    where = where or [f"input {number}" for number in range(1, len(inputs) + 1)]
    return [read(value, name) for value, name in zip(inputs, where, strict=True)]


def read_texts(inputs: Sequence[object], where: Sequence[str] | None = None) -> list[TextExample]:
    """Converts inputs to texts and pairs of texts; arguments as for `read_inputs`."""
    return read_inputs(read_text, inputs, where)


def make_records(examples: Sequence[object], predictions: Iterable[Record]) -> list[Record]:
    """Joins the inputs of each example and its prediction."""
    return [_inputs(example) | prediction for example, prediction in zip(examples, predictions, strict=True)]


def _inputs(example: object) -> Record:
    values = {name: getattr(example, name, None) for name in _INPUT_FIELDS}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None
    }
