"""What other people's code and terminals set for the whole process, kept from changing what this program does."""

import codecs
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from locale import LC_ALL, setlocale
from typing import Any

ASCII = str.maketrans(
    {"±": "+-", "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "█": "#", "“": '"', "”": '"', "’": "'"}
)


def begin() -> None:
    """At the start of a command: anything can be printed, and any name of a file can be used, in any locale.

    Where Python takes the locale at its word that there is nothing but ASCII, it is started anew in its UTF-8 mode,
    without which no file's name could have an umlaut.
    """
    if sys.getfilesystemencoding() == "ascii" and os.environ.get("PYTHONUTF8") != "1":
        # What is printed stays ASCII, and so do processes that are started from here.
        os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": os.environ.get("PYTHONIOENCODING", "ascii")}
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    try:
        here = os.getcwd()
    except FileNotFoundError:
        sys.exit("error: the current folder is gone: change to one that is there")
    if "${" in here:
        sys.exit(f"error: Hydra takes the ${{ in {here} for a reference: change to a folder without it")
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value]:
        # As a container sets those that it knows nothing of; W&B takes them for values, and for wrong ones.
        del os.environ[name]
    codecs.register_error("awr_exp", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="awr_exp")


def say(lines: Iterable[str]) -> None:
    """Print lines, until whoever reads them has seen enough, as `head` has."""
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # At its exit Python would try once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def hang_up() -> tuple[signal.Signals, ...]:
    """SIGHUP, which a terminal sends when it is closed; none where it is ignored, as with nohup."""
    return () if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else (signal.SIGHUP,)


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP interrupt as SIGINT does: whoever is at work says how to go on. Then it exits.

    Who trains listens to them by itself, and ends when all is saved.
    """

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, *hang_up())}
    try:
        yield
    except KeyboardInterrupt as stop:
        sys.exit(128 + (stop.args or (signal.SIGINT,))[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_ascii(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written for characters that the terminal does not know."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(ASCII)
    with suppress(UnicodeEncodeError):
        # Of a name that is no text in this locale, the bytes as they are.
        return text.encode("ascii", "surrogateescape"), error.end
    return text.encode("ascii", "backslashreplace"), error.end


@contextmanager
def kept() -> Iterator[None]:
    """What other people's code does inside to the settings of the process is undone afterwards.

    Such as a default dtype or device, gradients, threads, NumPy's errors, warnings, or the locale.
    """
    before = {name: setting.get() for name, setting in _settings().items()}
    try:
        yield
    finally:
        for name, setting in _settings().items():
            # In another thread somebody else's code may be at it: what all threads share goes back to how it began.
            wanted = _shared[name] if name in _shared else before.get(name, setting.usual)
            if wanted is not UNKNOWN and setting.get() != wanted:
                setting.set(wanted)


@contextmanager
def usual() -> Iterator[None]:
    """Inside, the process is set as torch, NumPy and Python begin, whatever somebody has made of that; then as before.

    Warnings that were to be errors are warnings.
    """
    with kept():
        for setting in _settings().values():
            if setting.usual is not UNKNOWN and setting.get() != setting.usual:
                setting.set(setting.usual)
        _set_warnings([one for one in warnings.filters if one[0] != "error"])
        outer = dict(_shared)
        _shared.update({name: setting.get() for name, setting in _settings().items() if setting.shared})
        try:
            yield
        finally:
            _shared.clear()
            _shared.update(outer)


UNKNOWN = object()


@dataclass(frozen=True)
class Setting:
    """A setting of the process; usual: how it begins, if known; shared: one for all threads, which we leave alone."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]
    usual: Any = UNKNOWN
    shared: bool = False


_shared: dict[str, Any] = {}


def _settings() -> dict[str, Setting]:
    """The settings of Python and of the modules that are there: nothing is imported for this."""
    # What a module defines late is there once it is imported as a whole.
    late = {"numpy": "seterrcall", "torch": "set_default_device"}
    return _settings_of(*(name for name, last in late.items() if hasattr(sys.modules.get(name), last)))


@cache
def _settings_of(*names: str) -> dict[str, Setting]:
    found = {
        "locale": Setting(partial(setlocale, LC_ALL), partial(setlocale, LC_ALL), shared=True),
        "warnings": Setting(lambda: list(warnings.filters), _set_warnings, shared=True),
        "logging": Setting(lambda: logging.root.manager.disable, logging.disable, logging.NOTSET, shared=True),
    }
    if "numpy" in names:
        numpy = sys.modules["numpy"]
        errors = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
        found["numpy"] = Setting(numpy.geterr, lambda value: numpy.seterr(**value), errors)
    if "torch" in names:
        torch = sys.modules["torch"]
        found |= {
            "dtype": Setting(torch.get_default_dtype, torch.set_default_dtype, torch.float32, shared=True),
            "device": Setting(_device, torch.set_default_device, None),
            "grad": Setting(torch.is_grad_enabled, torch.set_grad_enabled, True),
            "deterministic": Setting(
                torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0, shared=True
            ),
            "threads": Setting(torch.get_num_threads, torch.set_num_threads),
            "products": Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        }
    return found


def _set_warnings(filters: list[Any]) -> None:
    warnings.filters[:] = filters  # type: ignore[index]
    # Modules remember what they have warned of by the number of changes.
    warnings._filters_mutated()  # type: ignore[attr-defined]


def _device() -> Any:
    """The default device, None where nobody has set one."""
    context = getattr(sys.modules["torch"]._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device
