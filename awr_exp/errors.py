"""The one exception whose message is written for the user, and other people's in one line."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what to change.

    The command line prints it without a traceback and exits with code 1.
    """


FAILURES = (Exception, SystemExit)
"""What an environment may raise: where it wants to end the process, it has failed like any other."""


def first_line(error: BaseException) -> str:
    """Of its message, or its name where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def named(error: BaseException) -> str:
    """Its name and its whole message, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())
