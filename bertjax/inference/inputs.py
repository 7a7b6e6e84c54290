"""From what a user asks to examples and back: texts, pairs, lists of words, and dicts as JSON lines give them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bertjax.errors import UserError
from bertjax.tasks.examples import ChoiceExample, QuestionExample, TextExample, WordsExample
from bertjax.text import readers

_DIGITS = 6  # of what is told of a probability, or of a number of an embedding


def examples(kind: str, inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[Any]:
    """The examples of a kind of task; `where` names the inputs in messages.

    Raises:
      UserError: an input that is no example of the kind.
    """
    if isinstance(inputs, str):
        raise UserError("give a list of inputs, not a single text")
    where = where or [f"input {number}" for number in range(1, len(inputs) + 1)]
    read = _READERS[kind]
    return [read(one, place) for one, place in zip(inputs, where, strict=True)]


def read_texts(inputs: Sequence[Any], where: Sequence[str] | None = None) -> list[TextExample]:
    """The same of texts, whatever the task."""
    return examples("classification", inputs, where)


def asked(example: Any) -> dict[str, Any]:
    """The same as a dict, to stand before what is predicted."""
    values = {field.name: getattr(example, field.name) for field in dataclasses.fields(example)}
    shown = {name: values[name] for name in _SHOWN if values.get(name) is not None}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}


def rounded(value: Any) -> Any:
    """A number or an array as numbers of a few digits."""
    return np.round(np.asarray(value, np.float64), _DIGITS).tolist()


def _text(one: Any, where: str) -> TextExample:
    """A text, a pair of texts, or a dict of `text` and perhaps `second`."""
    if isinstance(one, str):
        first, second = one, None
    elif isinstance(one, dict) and "text" in one:
        first, second = one["text"], one.get("second")
    elif isinstance(one, list | tuple) and len(one) == 2:
        first, second = one
    else:
        raise _not(where, one, 'a text, a pair of texts, or an object {"text": …, "second": …}')
    return TextExample(where, where, _string(first, where), None if second is None else _string(second, where))


def _question(one: Any, where: str) -> QuestionExample:
    if isinstance(one, list | tuple) and len(one) == 2:
        question, passage = one
    elif isinstance(one, dict) and "question" in one and ("passage" in one or "context" in one):
        question, passage = one["question"], one.get("passage", one.get("context"))
    else:
        raise _not(where, one, 'a question and a passage, or an object {"question": …, "passage": …}')
    return QuestionExample(where, where, _string(question, where), _string(passage, where))


def _words(one: Any, where: str) -> WordsExample:
    """A list of words, or a text that is split at white space."""
    if isinstance(one, dict):
        one = one.get("words", one.get("text"))
    words = _string(one, where).split() if isinstance(one, str) else one
    if not (isinstance(words, list | tuple) and words):
        raise _not(where, one, 'a text, a list of words, or an object {"words": […]}')
    return WordsExample(where, where, tuple(_string(word, where) for word in words))


def _choices(one: Any, where: str) -> ChoiceExample:
    choices = one.get("choices") if isinstance(one, dict) and "text" in one else None
    if not (isinstance(choices, list | tuple) and choices):
        raise _not(where, one, 'an object {"text": …, "choices": […]}')
    choices = tuple(_string(choice, where) for choice in choices)
    return ChoiceExample(where, where, _string(one["text"], where), choices)


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: {str(value)[:60]!r} is not a text; put it in quotation marks")
    if not value.strip():
        raise UserError(f"{where}: the text is empty; fill it in or leave it out")
    return readers.valid(value, where)


def _not(where: str, one: Any, expected: str) -> UserError:
    return UserError(f"{where}: {str(one)[:60]!r} is not {expected}")


_SHOWN = ("text", "second", "question", "words", "choices")  # a passage is too long to be repeated
_READERS: dict[str, Callable[[Any, str], Any]] = {
    "classification": _text,
    "multi_label": _text,
    "regression": _text,
    "choice": _choices,
    "tagging": _words,
    "span": _question,
}
