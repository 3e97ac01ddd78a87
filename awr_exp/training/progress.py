"""What a person sees while a run lasts and when it ends."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich import get_console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from awr_exp.shell import Paste


class _Rate(ProgressColumn):
    """Shows the updates a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "–/s", no_wrap=True)


class Bar:
    """A live bar on a terminal: what is being done, rate, remaining time, last evaluation and health of the weights.

    Its title is what is done, but for what `doing` says. The bar itself takes what 80 columns leave. Silent where the
    output is no terminal; the log has the same numbers.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=5)),
            TextColumn("{task.completed}/{task.total}"),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[evaluation]}"),
            TextColumn("{task.fields[health]}"),
            expand=True,
            transient=True,
            disable=not get_console().is_terminal,
        )
        self.task = self.progress.add_task(title, total=total, completed=done, evaluation="", health="")

    def __enter__(self) -> "Bar":
        global _bar
        self.progress.start()
        _bar = self
        return self

    def __exit__(self, *error: object) -> None:
        global _bar
        _bar = None
        self.progress.stop()

    def advance(self, done: int) -> None:
        self.progress.update(self.task, completed=done)

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """It says this instead, while something else is done than what it counts."""
        (task,) = self.progress.tasks
        before = task.description
        self.progress.update(self.task, description=text)
        try:
            yield
        finally:
            self.progress.update(self.task, description=before)

    def tell(self, **texts: Any) -> None:
        """Change what it says at its end: `evaluation` or `health`."""
        self.progress.update(self.task, **texts)


_bar: Bar | None = None
"""The bar that is on the terminal, if there is one."""


@contextmanager
def compiling(seconds: str) -> Iterator[None]:
    """The bar says that the compiler is at work, and for about how long, since nothing else moves meanwhile."""
    bar, text = _bar, f"compiling, {seconds}, once"
    if bar is None:
        # It works before there is anything to count.
        with get_console().status(text) if get_console().is_terminal else nullcontext():
            yield
        return
    with bar.doing(text):
        yield


def closing_table(rows: Sequence[Sequence[str]], notes: Sequence[tuple[str, str]]) -> None:
    """Print results (name, then values), then where things are (name, place).

    Rows may end early, and columns without any text are left out.
    """
    table = Table(show_header=False, box=None, pad_edge=False)
    columns = [column for column in zip_longest(*rows, fillvalue="") if any(column)]
    for row in zip(*columns, strict=True):
        # What is cut could be another's name.
        first, second, *others = (Text(cell, overflow="fold") for cell in row)
        second.stylize("bold")
        table.add_row(first, second, *others)
    _print("", table, "")
    for name, value in notes:
        _print(Text(_folded(f"{name}: {value}", isinstance(value, Paste))), soft_wrap=True)


def _folded(text: str, command: bool) -> str:
    """The text in lines that the terminal has room for, broken between words alone: a path can be copied.

    A command goes on in the next line as it would in a shell. Where there is no terminal, nothing is broken.
    """
    console = get_console()
    if not console.is_terminal:
        return text
    words = _QUOTED.findall(text) if command else text.split(" ")
    if "".join("".join(words).split()) != "".join(text.split()):
        # An apostrophe of a sentence is no quote.
        return text
    first, *others = words
    lines, end = [first], " \\" if command else ""
    for word in others:
        if len(f"{lines[-1]} {word}{end}") <= console.width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return f"{end}\n".join(lines)


_QUOTED = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
"""A word of a shell, as it is written."""


def _print(*objects: Any, **options: Any) -> None:
    """Print on the terminal, or nowhere where that is a full disk or a pipe whose end is closed."""
    with suppress(OSError, SystemExit):
        get_console().print(*objects, **options)


SCREEN = logging.INFO + 1
"""Level of what is said of several runs together: of interest while they last, but to none of their logs."""

CLOSING = logging.WARNING - 1
"""Level of what a command ends with, such as how to go on: it is said even where logging is switched off."""

_speaker: ContextVar[tuple[Path, str] | None] = ContextVar("speaker", default=None)


@contextmanager
def speaking(folder: Path, name: str = "") -> Iterator[None]:
    """Whatever is logged inside is said of the run in `folder`, `name` among several."""
    before = _speaker.set((folder, name))
    try:
        yield
    finally:
        _speaker.reset(before)


class Logs(logging.Handler):
    """The logs of several runs, by their folders.

    Each has what is said of its run, and of no run in particular; none has what is for the screen alone.
    """

    def __init__(self, files: Mapping[Path, logging.Handler]) -> None:
        super().__init__()
        self.files = files

    def emit(self, record: logging.LogRecord) -> None:
        speaker = _speaker.get()
        if speaker:
            # A part of a run, such as its baseline, has no log of its own.
            places = (speaker[0], *speaker[0].parents)
            own = next((self.files[place] for place in places if place in self.files), None)
            chosen = [own] if own else []
        else:
            chosen = [] if record.levelno == SCREEN else list(self.files.values())
        for file in chosen:
            file.handle(record)

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        super().close()


class TerminalHandler(logging.Handler):
    """Log lines above the live bar, broken between words alone, so that a path can be copied.

    Of one run among several only warnings and errors, with its name in front.
    """

    def emit(self, record: logging.LogRecord) -> None:
        speaker = _speaker.get()
        name = speaker[1] if speaker else ""
        if not name or record.levelno >= logging.WARNING:
            text = f"{name}: {self.format(record)}" if name else self.format(record)
            pasted = any(isinstance(one, Paste) for one in record.args or ())
            text = "\n".join(_folded(line, pasted) for line in text.splitlines())
            _print(text, soft_wrap=True, markup=False, highlight=False)


def heard() -> None:
    """However logging is configured: warnings, errors and closing lines come to the terminal, if by nobody else."""
    root = logging.getLogger()
    for logger in map(logging.getLogger, [name for name in root.manager.loggerDict if name.startswith("awr_exp")]):
        logger.disabled = False
    if all(isinstance(handler, logging.FileHandler | logging.NullHandler) for handler in root.handlers):
        root.addHandler(TerminalHandler(CLOSING))
        root.setLevel(min(root.level, CLOSING))
