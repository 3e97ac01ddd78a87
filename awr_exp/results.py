"""What runs left on disk, for whoever asks later: the table at the end of a sweep, its resumption, the report."""

import fcntl
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from awr_exp.errors import UserError, printable
from awr_exp.reading import read_json, read_yaml

log = logging.getLogger(__name__)

RESULT = "result.json"
CHANGED = ".hydra/resumed.yaml"
FINISHED, FAILED, STOPPED, UNFINISHED, PRUNED = "finished", "failed", "stopped", "unfinished", "pruned"
LARGEST = 1e100
"""Numbers are below: those of a run in float32 end at 3e38."""


@dataclass(frozen=True)
class PastRun:
    """A run's folder, the overrides that it was started with, and how it ended.

    status: finished, failed (see error), stopped by a signal, pruned by a search, or unfinished: still running, or
    killed. metrics: the last of each that is a finite number; returns: of the episodes of the last evaluation.
    """

    folder: Path
    overrides: Mapping[str, str]
    status: str = UNFINISHED
    error: str | None = None
    update: int = 0
    env_steps: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    returns: Sequence[float] = ()


@dataclass(frozen=True)
class Outcome:
    """The last metrics of a run, and why it did not reach its end, or what of it could not be kept, if so."""

    metrics: Mapping[str, float]
    error: Exception | None = None


def write(folder: Path, content: Mapping[str, Any]) -> bool:
    """Write `<folder>/result.json` at once or not at all: False, and a warning, where a disk is full."""
    try:
        atomic_write(folder / RESULT, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        log.warning("the result could not be written: %s", error)
        return False
    return True


def atomic_write(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file at once or not at all; durable: whatever happens to the machine, too. Raises OSError."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.unlink(missing_ok=True)
    try:
        # A new file: what somebody has put there may be a link.
        with draft.open("xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def file_lock(folder: Path) -> Iterator[None]:
    """Raises UserError while another process is at work in the folder, and OSError where that cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # Where there can be no more files, or no locks, nobody is kept out.
        with suppress(OSError):
            lock = stack.enter_context((folder / "lock").open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another process is at work in {folder}: wait for it, or stop it first") from None
            stack.callback((folder / "lock").unlink, missing_ok=True)
        yield


def read(folder: Path, started_with: Mapping[str, str] | None = None) -> PastRun:
    """What is known of the run in `folder`; files that are missing or broken say nothing."""
    started_with = (overrides(folder) or {}) if started_with is None else started_with
    try:
        return load(folder, started_with)
    except UserError:
        return PastRun(folder, started_with)


def load(folder: Path, started_with: Mapping[str, str]) -> PastRun:
    """What is known of the run in `folder`. Raises UserError if there is a result and it is not one."""
    path = folder / RESULT
    if not path.exists():
        return PastRun(folder, started_with)
    content = read_json(path)

    def known(name: str, is_right: bool, what: str) -> Any:
        if not is_right:
            raise UserError(f"{path} cannot be read: its {name} is not {what}")
        return content.get(name)

    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it is not a mapping")
    status, error, metrics = content.get("status"), content.get("error"), content.get("metrics")
    returns = content.get("returns") or []
    counts = {name: known(name, _count(content.get(name, 0)), "a count") or 0 for name in ("update", "env_steps")}
    return PastRun(
        folder,
        started_with,
        known("status", status in (FINISHED, FAILED, STOPPED, UNFINISHED, PRUNED), "that of a run"),
        known("error", error is None or isinstance(error, str), "a text") and printable(str(error)),
        metrics=_finite(known("metrics", isinstance(metrics, dict) and all(map(_number, metrics.values())), "numbers")),
        returns=list(_finite(dict(enumerate(known("returns", _numbers(returns), "a list of numbers") or ()))).values()),
        **counts,
    )


def mark(folder: Path, status: str) -> None:
    """Change the status of the result in `folder`, if it has one."""
    with suppress(UserError):
        write(folder, read_json(folder / RESULT) | {"status": status})


def _number(value: Any) -> bool:
    """Whether it is one that can be used, or none at all such as nan."""
    return value is None or (type(value) in (int, float) and not LARGEST <= abs(value) < math.inf)


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number, value))


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _finite(values: Mapping[Any, Any]) -> dict[Any, float]:
    return {name: value for name, value in values.items() if value is not None and math.isfinite(value)}


def overrides(folder: Path) -> dict[str, str] | None:
    """The overrides of the run in `folder` by name, without those that choose the sweep itself; None if unknown."""
    try:
        lines = read_yaml(folder / ".hydra" / "overrides.yaml")
    except UserError:
        return None
    return parsed(map(printable, map(str, lines or []))) if isinstance(lines, list | None) else None


def changed(folder: Path) -> dict[str, str]:
    """The settings that were changed while the run in `folder` was resumed, with their latest values as text."""
    with suppress(UserError):
        found = read_yaml(folder / CHANGED)
        if isinstance(found, dict):
            return {printable(str(name)): printable(str(value)) for name, value in found.items()}
    return {}


def parsed(overrides: Iterable[str]) -> dict[str, str]:
    """Overrides of a command line by name, without those that choose the sweep itself."""
    pairs = [str(line).partition("=")[::2] for line in overrides]
    return {key.lstrip("+"): value for key, value in pairs if not key.startswith(("sweep.", "hydra."))}


def begun(folder: Path) -> bool:
    """Whether a run has left something in the folder, or is at work there."""
    names = (RESULT, "metrics.jsonl", "checkpoint", "lock", "baseline", "offline")
    return any((folder / name).exists() for name in names)


def finished(run: PastRun, content: Mapping[str, Any]) -> bool:
    """Whether a run has come as far as its configuration wants it to."""
    wanted = content["trainer"]
    enough = run.update >= wanted.get("updates", 0) and run.env_steps >= wanted.get("env_steps", 0)
    return run.status == FINISHED and enough


def runs(folder: Path) -> list[PastRun]:
    """All runs in a folder and below, in the order of `folders`."""
    return [read(path) for path in folders(folder)]


def folders(folder: Path) -> list[Path]:
    """The folders of all runs in a folder and below by name, a sweep's jobs by number."""
    found = {path.parent for name in (".hydra", "metrics.jsonl") for path in folder.rglob(name)}
    # A baseline belongs to the run in whose folder it lies.
    found = {path for path in found if path.parent not in found}
    return sorted(found, key=lambda path: [(len(part), part) for part in path.parts])


def varied(found: list[PastRun]) -> list[str]:
    """The overrides in which runs differ."""
    names = {name: None for run in found for name in run.overrides}
    return [name for name in names if len({run.overrides.get(name) for run in found}) > 1]


def label(run: PastRun, names: list[str]) -> str:
    """A run by what sets it apart, such as "agent.beta=0.1 seed=2"."""
    return " ".join(f"{name}={_short(run.overrides[name])}" for name in names if name in run.overrides)


def _short(value: str) -> str:
    """A number without the digits that nobody reads."""
    try:
        return value if len(value) < 8 else f"{float(value):.4g}"
    except ValueError:
        return value
