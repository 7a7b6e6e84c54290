"""UserError, the exception for mistakes of the user; formatting of messages; exit of a process on errors."""

import itertools
import os
import reprlib
import sys
import traceback
from collections.abc import Iterable
from typing import NoReturn

_MAX_MESSAGE = 1000  # characters; lists of names of tokenizers or tasks may be longer
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80  # characters
_MAX_NAMES = 16


class UserError(Exception):
    """An error that the user can fix.

    The message is one line with the location, the problem and the remedy. Commands print it and exit with code 2; the
    traceback appears only with `--debug`.
    """


def first_line(error: BaseException) -> str:
    """Returns the first line of a library's error, at most 160 characters; its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def one_line(message: str) -> str:
    """Returns a message as one printable line: white space collapsed, the middle of a long message elided.

    Messages may quote damaged files, with text of any length and control characters.
    """
    line = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(message.split()))
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE // 2]} … {line[-_MAX_MESSAGE // 2 :]}"


def short_repr(value: object) -> str:
    """Returns the `repr` of a value for messages, with the middle elided if it is long."""
    return _REPR.repr(value)


def join_names(names: Iterable[str]) -> str:
    """Returns the first names as a list for messages."""
    first = [name[:40] for name in itertools.islice(names, _MAX_NAMES + 1)]
    return ", ".join([*first[:_MAX_NAMES], *(["…"] if len(first) > _MAX_NAMES else [])])


def print_error(message: str) -> None:
    """Prints an error as one line on stderr."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)


def exit_now(error: BaseException, debug: bool = False) -> NoReturn:
    """Exits the process immediately, with the message and exit code of a command that fails with `error`.

    Does not wait for threads or other processes. With `debug`, prints the traceback of a UserError as well.
    """
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        code = 130
    elif isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
    elif isinstance(error, UserError) and not debug:
        print_error(str(error))
        code = 2
    else:
        traceback.print_exception(error)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
