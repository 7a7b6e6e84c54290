"""The one exception that a user's mistake ends in."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line that says what is wrong, where, and what to do. Commands print it and exit with
    code 2; the traceback appears only with `--debug`.
    """
