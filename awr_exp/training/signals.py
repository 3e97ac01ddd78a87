"""Signals that ask a run to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from awr_exp.surroundings import hang_up


class _Killed(BaseException):
    """A second signal has come. A SystemExit would pass for a failure of the environment that it hits."""


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGTERM, SIGINT and SIGHUP instead of dying of them, in the main thread; a second one kills.

    Where somebody waits for SIGUSR2, a scheduler's notice before it takes the machine away, that one instead of
    SIGTERM, which may follow while the job is queued again.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise _Killed(number)
        received.append(number)

    try:
        notice = signal.SIGUSR2 if callable(signal.getsignal(signal.SIGUSR2)) else signal.SIGTERM
        before = {number: signal.signal(number, receive) for number in (notice, signal.SIGINT, *hang_up())}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield received
    except _Killed as killed:
        raise SystemExit(128 + killed.args[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
