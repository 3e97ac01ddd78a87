"""The one exception whose message is written for the user."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where, and what to change.

    The command line prints it without a traceback and exits with code 1.
    """
