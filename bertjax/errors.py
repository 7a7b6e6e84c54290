"""The one exception that a user's mistake ends in, and what it tells of errors of others."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line that says what is wrong, where, and what to do. Commands print it and exit with
    code 2; the traceback appears only with `--debug`.
    """


def first_line(error: BaseException) -> str:
    """What an error of a library says first, at most 160 characters; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
