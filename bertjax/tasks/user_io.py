"""From what users type to texts, and from numbers to what they are shown."""

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from bertjax import decoding
from bertjax.errors import UserError
from bertjax.tasks.examples import TextExample
from bertjax.text import readers

T = TypeVar("T")

_DIGITS = 6  # of a probability, or of a number of an embedding


@dataclass(frozen=True)
class _Texts:
    """One text or two."""

    text: str
    second: str | None = None


def typed(value: Any, cls: type[T], where: str, expected: str) -> T:
    """What a user typed, as a `cls`; `expected` is that in words.

    Raises:
      DecodingError: it is something else.
    """
    return decoding.convert(value, cls, where, f"give {expected}", foreign=True)


def read_text(value: Any, where: str) -> TextExample:
    """The example of a text, a pair of texts, or a dict of `text` and perhaps `second`.

    Raises:
      UserError: it is none of these.
    """
    expected = 'a text, a pair of texts, or an object {"text": …, "second": …}'
    match typed(value, str | tuple[str, str | None] | _Texts, where, expected):
        case str(first):
            second = None
        case (first, second):
            pass
        case _Texts(first, second):
            pass
    return TextExample(where, where, string(first, where), None if second is None else string(second, where))


def string(value: str, where: str) -> str:
    """A text that is not empty.

    Raises:
      UserError: it is empty, or broken.
    """
    if not value.strip():
        raise UserError(f"{where}: the text is empty; fill it in or leave it out")
    return readers.valid(value, where)


def rounded(value: Any) -> Any:
    """A number or an array as numbers of a few digits."""
    return np.round(np.asarray(value, np.float64), _DIGITS).tolist()
