"""From what users type to texts, and from numbers to what they are shown."""

from typing import Any

import numpy as np

from bertjax.errors import UserError
from bertjax.tasks.examples import TextExample
from bertjax.text import readers

_DIGITS = 6  # of a probability, or of a number of an embedding


def read_text(value: Any, where: str) -> TextExample:
    """The example of a text, a pair of texts, or a dict of `text` and perhaps `second`.

    Raises:
      UserError: it is none of these.
    """
    if isinstance(value, str):
        first, second = value, None
    elif isinstance(value, dict) and "text" in value:
        first, second = value["text"], value.get("second")
    elif isinstance(value, list | tuple) and len(value) == 2:
        first, second = value
    else:
        raise not_expected(where, value, 'a text, a pair of texts, or an object {"text": …, "second": …}')
    return TextExample(where, where, string(first, where), None if second is None else string(second, where))


def string(value: Any, where: str) -> str:
    """A text that is not empty.

    Raises:
      UserError: it is none.
    """
    if not isinstance(value, str):
        raise UserError(f"{where}: {str(value)[:60]!r} is not a text; put it in quotation marks")
    if not value.strip():
        raise UserError(f"{where}: the text is empty; fill it in or leave it out")
    return readers.valid(value, where)


def not_expected(where: str, value: Any, expected: str) -> UserError:
    """The error of an input that is something else."""
    return UserError(f"{where}: {str(value)[:60]!r} is not {expected}")


def rounded(value: Any) -> Any:
    """A number or an array as numbers of a few digits."""
    return np.round(np.asarray(value, np.float64), _DIGITS).tolist()
