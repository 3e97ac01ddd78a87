"""The one exception whose message is written for the user, and other people's in one line."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what to change.

    The command line prints it without a traceback and exits with code 1.
    """


FAILURES = (Exception, SystemExit)
"""What an environment may raise: where it wants to end the process, it has failed like any other."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message without rules of dashes, or the error's name where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    return lines[0] if lines else type(error).__name__


def printable(text: str) -> str:
    """A text from a file without what a terminal would obey."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)


def named(error: BaseException) -> str:
    """An error's name and its whole message, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def unwritable(place: object, error: OSError, advice: str = "") -> UserError:
    """What is said of a file or folder that cannot be written, with what to do, if there is something."""
    return UserError(f"{place} cannot be written: {error.strerror or error}{f'; {advice}' if advice else ''}")
