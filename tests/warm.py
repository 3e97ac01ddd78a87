"""Commands in processes of their own, forked from one that has imported what they need, which is most of their time."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import gymnasium
import matplotlib.backends.backend_agg
import matplotlib.figure
import minari
import wandb
import yaml

from awr_exp import command, experiment
from awr_exp.report import page

# The parser in C reads the same, and all tests together compose some thousand configurations.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]
_FORKS = multiprocessing.get_context("forkserver")
# By what is imported here, since a name that is not found is passed over in silence.
_LOADED = (
    *(gymnasium, minari, wandb, matplotlib.figure, matplotlib.backends.backend_agg),
    *(command, experiment, page),
)
_FORKS.set_forkserver_preload([module.__name__ for module in _LOADED])


def _main(arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str], output: Path) -> None:
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))
    sys.argv[1:] = arguments
    try:
        runpy.run_module("awr_exp.main", run_name="__main__", alter_sys=True)
    finally:
        # As an interpreter does at its end, in this order; a process of multiprocessing calls the second not at all.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


class Popen:
    """`python -m awr_exp.main` with these arguments, and what tests need of subprocess.Popen.

    It is no fresh interpreter: what acts before or while something is imported (variables of Python, of OpenMP, of the
    locale) needs subprocess.Popen itself.
    """

    def __init__(self, arguments: tuple[str, ...], cwd: Path, env: Mapping[str, str]) -> None:
        self.args, self._folder = arguments, tempfile.TemporaryDirectory()
        self._output = Path(self._folder.name, "output")
        self._process = _FORKS.Process(target=_main, args=(arguments, cwd, env, self._output))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        self.wait(timeout)
        return self._output.read_text(), None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
