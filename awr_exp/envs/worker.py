"""An object in a process of its own, whose methods are called over a pipe, or its like in this process.

A worker is a fresh interpreter that imports torch only if its object does, runs nothing of the program that started it,
and ends with it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from awr_exp.errors import FAILURES, named

PATIENCE = 5
"""Seconds that a worker has to end what it is at."""
TICK = 0.1
"""Seconds between looks at whether it is time to stop."""

Stopped = Callable[[], object]
"""Says whether it is time to stop."""


class WorkerError(Exception):
    """A worker died, or could not do what was asked of it."""


class WorkerDiedError(WorkerError):
    """A worker was killed, or its machine ran out of something: a new one may do."""


class HangsError(Exception):
    """It is time to stop, and what was asked for takes too long."""


class Worker:
    """Hosts what `make` returns. Each `ask` names a method, and is followed by one `answer`.

    Both raise WorkerError if something went wrong. Once `stopped` is true, neither waits longer than PATIENCE:
    HangsError. Raises WorkerError where no process can be started.
    """

    def __init__(self, make: Callable[[], Any], stopped: Stopped = lambda: False) -> None:
        self.stopped = stopped
        # What this interpreter can import, the worker can.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self.pipe, other = Pipe()
        command = [sys.executable, "-m", __name__, str(other.fileno())]
        # One thread: all cores are spoken for, by the other workers and by the one that asks.
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            self.process = subprocess.Popen(command, pass_fds=[other.fileno()], env=environment)
        except OSError as error:
            self.pipe.close()
            raise WorkerError(f"a worker process cannot be started ({error.strerror})") from None
        finally:
            other.close()
        self.begun = False
        self._send(cloudpickle.dumps(make))

    def ask(self, method: str, *arguments: Any) -> None:
        if not self.begun:
            # Before, it reads nothing, and a large request would wait in the pipe, whatever is stopped meanwhile.
            self.begun = True
            self.answer()
        self._send(cloudpickle.dumps((method, arguments)))

    def answer(self) -> Any:
        patience: float = PATIENCE
        try:
            while not self.pipe.poll(TICK):
                patience -= TICK if self.stopped() else 0
                if patience <= 0:
                    self.process.kill()
                    raise HangsError("a worker process does not answer: what it was asked for is left out")
            answer = self.pipe.recv()
        except (OSError, EOFError):
            raise self._died() from None
        if isinstance(answer, Exception):
            raise WorkerError(str(answer))
        return answer

    def _send(self, content: bytes) -> None:
        try:
            self.pipe.send_bytes(content)
        except OSError:
            raise self._died() from None

    def _died(self) -> WorkerDiedError:
        """An error that says what the process died of, as far as that is known."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        code = self.process.returncode
        how = f"signal {-code}, {signal.strsignal(-code)}" if code and code < 0 else f"exit code {code}"
        return WorkerDiedError("a worker process died" if code is None else f"a worker process died ({how})")

    def close(self) -> None:
        self.pipe.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            # It hangs in what it was asked for last.
            self.process.kill()
            self.process.wait()


class Local:
    """A worker in this process: it does what it was asked for once the answer is wanted."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.hosted = make()

    def ask(self, method: str, *arguments: Any) -> None:
        self.answer = partial(getattr(self.hosted, method), *arguments)

    def close(self) -> None:
        self.hosted.close()


def serve(pipe: Connection) -> None:
    """Do what the other end of the pipe asks for, until it is closed. Exceptions are answers, too."""
    # Signals are for the one that trains, who closes the pipe when it is time.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, OSError):  # the other end is closed
        made = pipe.recv_bytes()
        hosted, failed = _tried(lambda: cloudpickle.loads(made)())
        pipe.send(failed)
        while failed is None:
            method, arguments = cloudpickle.loads(pipe.recv_bytes())
            answer, error = _tried(partial(getattr(hosted, method), *arguments))
            pipe.send(error or answer)


def _tried(call: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What the call returns, or the error that it ends with."""
    try:
        return call(), None
    except FAILURES as error:
        return None, RuntimeError(named(error))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
