"""The one exception that a user's mistake ends in, and how errors end a process."""

import itertools
import os
import reprlib
import sys
import traceback
from collections.abc import Iterable
from typing import NoReturn

_LONGEST = 1000  # characters of a message; lists of a tokenizer's or a task's names may be longer
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80  # characters
_MAX_NAMES = 20


class UserError(Exception):
    """Something the user can put right.

    The message is one line that says what is wrong, where, and what to do. Commands print it and exit with
    code 2; the traceback appears only with `--debug`.
    """


def first_line(error: BaseException) -> str:
    """What an error of a library says first, at most 160 characters; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def one_line(message: str) -> str:
    """A message as one line that can be shown: white space is one space, a long one lacks its middle.

    What a damaged file says may be part of it, in any length and with characters that steer a terminal.
    """
    line = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(message.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} … {line[-_LONGEST // 2 :]}"


def shown(value: object) -> str:
    """A value as messages show it: its `repr`, without the middle where that is long."""
    return _REPR.repr(value)


def listed(names: Iterable[str]) -> str:
    """The first names, as messages list what there is."""
    first = [name[:40] for name in itertools.islice(names, _MAX_NAMES + 1)]
    return ", ".join([*first[:_MAX_NAMES], *(["…"] if len(first) > _MAX_NAMES else [])])


def print_error(message: str) -> None:
    """Prints an error as the one line on stderr that ends a command."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)


def exit_now(error: BaseException, debug: bool = False) -> NoReturn:
    """Ends the process at once, with the message and exit code of a command that ends in `error`.

    It waits for no thread and no other process. `debug` prints the traceback of a UserError, too.
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
