"""Conversion of the inputs of `predict` to texts, and of numbers to its outputs."""

from dataclasses import dataclass
from types import UnionType
from typing import TypeVar, overload

import numpy as np

from bertjax import decoding
from bertjax.errors import UserError
from bertjax.tasks.examples import TextExample
from bertjax.text import readers

T = TypeVar("T")

_DIGITS = 6  # decimals of probabilities and embeddings


@dataclass(frozen=True)
class _Texts:
    text: str
    text_pair: str | None = None


def convert_input(value: object, cls: type[T] | UnionType, where: str, expected: str) -> T:
    """Returns an input as a `cls`, a type or a union of types; `expected` describes it in messages.

    Raises:
      DecodingError: the input has another type.
    """
    remedy = f"give {expected}"
    return decoding.convert(value, cls, where, remedy, foreign=True)  # pyright: ignore[reportArgumentType]  # a union


def read_text(value: object, where: str) -> TextExample:
    """Returns the example for a text, a tuple of two texts, or a dict with `text` and optionally `text_pair`.

    Raises:
      UserError: the input is none of these.
    """
    expected = 'a text, a tuple of two texts (read as a pair), or an object {"text": …, "text_pair": …}'
    check_pair(value, where, expected)
    typed: str | tuple[str, str | None] | _Texts = convert_input(
        value, str | tuple[str, str | None] | _Texts, where, expected
    )
    match typed:
        case str(text):
            text_pair = None
        case (text, text_pair):
            pass
        case _Texts(text, text_pair):
            pass
    checked_pair = None if text_pair is None else checked_text(text_pair, where)
    return TextExample(where, where, checked_text(text, where), checked_pair)


def check_pair(value: object, where: str, expected: str) -> None:
    """Checks that an input that is a tuple has two items; `expected` describes the input in the message.

    Raises:
      UserError: it has more or fewer.
    """
    if isinstance(value, tuple) and len(value) != 2:
        raise UserError(f"{where}: a tuple of {len(value)}; give {expected}; several inputs go into a list")


def checked_text(value: str, where: str) -> str:
    """Returns the text.

    Raises:
      UserError: the text is empty or not valid Unicode.
    """
    if not value.strip():
        raise UserError(f"{where}: the text is empty; fill it in or leave it out")
    return readers.valid(value, where)


@overload
def rounded(value: float) -> float: ...
@overload
def rounded(value: np.ndarray) -> list[float]: ...
def rounded(value: float | np.ndarray) -> float | list[float]:
    """Returns a number, or the numbers of a vector, rounded to a few decimals."""
    return np.round(np.asarray(value, np.float64), _DIGITS).tolist()
