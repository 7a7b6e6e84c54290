"""From what a user asks to examples and back: texts, pairs, lists of words, and dicts as JSON lines give them."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bertjax.errors import UserError
from bertjax.tasks.examples import TextExample
from bertjax.tasks.user_io import read_text

# What is repeated to a user, by its name in examples; a passage is too long.
_SHOWN = {"text": "text", "text_pair": "second", "question": "question", "words": "words", "choices": "choices"}


def read_inputs(
    read: Callable[[Any, str], Any], inputs: Sequence[Any], where: Sequence[str] | None = None
) -> list[Any]:
    """The examples that `read` makes of each input and its name; `where` names the inputs in messages.

    Raises:
      UserError: an input that cannot be read.
    """
    if isinstance(inputs, str):
        raise UserError("give a list of inputs, not a single text")
    where = where or [f"input {number}" for number in range(1, len(inputs) + 1)]
    return [read(value, name) for value, name in zip(inputs, where, strict=True)]


def read_texts(inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[TextExample]:
    """The same of texts, whatever the task."""
    return read_inputs(read_text, inputs, where)


def answers(examples: Sequence[Any], predictions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked, of each example, and what is predicted for it."""
    return [_asked(example) | found for example, found in zip(examples, predictions, strict=True)]


def _asked(example: Any) -> dict[str, Any]:
    shown = {name: getattr(example, field, None) for field, name in _SHOWN.items()}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in shown.items() if value is not None
    }
