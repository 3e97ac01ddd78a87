"""The C++ of native.cpp, compiled for this processor on first use, which takes a few seconds, and kept in the cache."""

import ctypes
import hashlib
import logging
import platform
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from awr_exp.machine import is_own, own_cache
from awr_exp.training.accelerate import compiler
from awr_exp.training.progress import compiling

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = [
    "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native",
    *("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread"),
]
AGAIN = 50
"""Calls between tries of another number of threads."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled steps, or None where there is no compiler, or where it fails, with a line that says why."""
    cxx = compiler()
    if cxx is None:
        return None
    try:
        if kept := own_cache("native"):
            with suppress(OSError):  # it is full, or what lies there may not be run
                return _loaded(cxx, kept)
        with tempfile.TemporaryDirectory() as place:
            return _loaded(cxx, Path(place))
    except OSError as error:
        said = str(error)
    except subprocess.CalledProcessError as error:
        # Not the line where it is, but what is wrong.
        said = next((line for line in error.stderr.splitlines() if "error" in line), str(error))
    log.warning("gradient steps could not be compiled, going on without: %s", said)
    return None


def _loaded(cxx: str, folder: Path) -> ctypes.CDLL:
    """The library that the folder has, or a new one. Raises OSError or CalledProcessError."""

    def run(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout

    facts = [SOURCE.read_text(), *FLAGS, run(cxx, "--version"), platform.machine(), *_processor()]
    name = _hash(repr(facts).encode())
    for library in folder.glob(f"{name}-*.so"):
        # A disk may have lost half of it, and to load that may end the process.
        if is_own(library) and library.stem == f"{name}-{_hash(library.read_bytes())}":
            return ctypes.CDLL(str(library))
        library.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "made.so"
        with compiling("a few seconds"):
            run(cxx, *FLAGS, "-o", str(made), str(SOURCE))
        made.chmod(0o700)
        # At once: two processes may be at it.
        library = made.replace(folder / f"{name}-{_hash(made.read_bytes())}.so")
    return ctypes.CDLL(str(library))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _processor() -> list[str]:
    """What the processor can do, as far as the system tells; nothing that changes with time."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return [platform.processor(), platform.node()]


class Threads:
    """One thread or as many as there may be, whichever is faster just now: another program may have their cores.

    Results do not depend on it.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        """A moving average of the seconds that a step takes, by the number of threads."""
        self.calls = 0

    @contextmanager
    def chosen(self, most: int, steps: int) -> Iterator[int]:
        """The number of threads for so many steps, whose time is taken."""
        self.calls += 1
        untried = [number for number in (1, most) if number not in self.seconds]
        fastest = min((1, most), key=lambda number: self.seconds.get(number, 0.0))
        # Now and then the other one, for programs come and go.
        number = untried[0] if untried else 1 + most - fastest if self.calls % AGAIN == 0 else fastest
        begun = time.perf_counter()
        yield number
        seconds = (time.perf_counter() - begun) / steps
        self.seconds[number] = (seconds + self.seconds.get(number, seconds)) / 2


THREADS: dict[Any, Threads] = defaultdict(Threads)
"""Each batch size and network has its own."""
