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
from typing import Annotated, Any, Literal, get_args

from awr_exp import ranges
from awr_exp.errors import UserError, printable
from awr_exp.ranges import Range, Whole
from awr_exp.reading import read_json, read_yaml

log = logging.getLogger(__name__)

RESULT = "result.json"
CHANGED = ".hydra/resumed.yaml"
LARGEST = 1e100
"""Numbers of a result are below; those of a run in float32 end at 3e38."""


def _usable(value: Any) -> bool:
    """Whether it is a number below LARGEST, or stands for none: null, nan or an infinity."""
    return value is None or (type(value) in (int, float) and not LARGEST <= abs(value) < math.inf)


Status = Literal["finished", "failed", "stopped", "unfinished", "pruned"]
FINISHED, FAILED, STOPPED, UNFINISHED, PRUNED = get_args(Status)
Said = Annotated[str, Range(lambda v: isinstance(v, str), "a text")]
Numbers = Annotated[Sequence[float], Range(ranges.list_of(_usable), "a list of numbers")]
Metrics = Annotated[
    Mapping[str, float], Range(lambda v: isinstance(v, dict) and all(map(_usable, v.values())), "numbers by name")
]


@dataclass(frozen=True)
class PastRun:
    """A run's folder, and how the run ended.

    status: finished, failed (see error), stopped by a signal, pruned by a search, or unfinished: still running, or
    killed. metrics: the last of each that is a finite number; returns: of the episodes of the last evaluation.
    """

    folder: Path
    status: Status = UNFINISHED
    error: Said | None = None
    update: Whole = 0
    env_steps: Whole = 0
    metrics: Metrics = field(default_factory=dict)
    returns: Numbers = ()


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


def locked() -> frozenset[int]:
    """The inodes of all files that processes of this machine hold locks on."""
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
        return frozenset(int(line.split()[5].rpartition(":")[2]) for line in lines if " FLOCK " in line)
    return frozenset()


def at_work(folder: Path, known: frozenset[int] | None = None) -> bool:
    """Whether a process of this machine is at work in a folder; known: what is `locked`, if that was asked before.

    To try the lock could refuse somebody who wants it just then.
    """
    with suppress(OSError):
        return (folder / "lock").stat().st_ino in (locked() if known is None else known)
    return False


def read(folder: Path) -> PastRun:
    """What is known of the run in `folder`; files that are missing or broken say nothing."""
    try:
        return load(folder)
    except UserError:
        return PastRun(folder)


def load(folder: Path) -> PastRun:
    """What is known of the run in `folder`. Raises UserError if there is a result and it is not one."""
    path = folder / RESULT
    if not path.exists():
        return PastRun(folder)
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it is not a mapping")
    known = {"update": 0, "env_steps": 0, **content, "returns": content.get("returns") or []}
    for name, hint in ranges.arguments(PastRun).items():
        ranges.check(f"{path} cannot be read: its {name}", known.get(name), hint)
    return PastRun(
        folder,
        known["status"],
        printable(known["error"]) if known.get("error") else None,
        known["update"],
        known["env_steps"],
        {name: value for name, value in known["metrics"].items() if _is_finite(value)},
        list(filter(_is_finite, known["returns"])),
    )


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def configuration(folder: Path) -> dict[str, Any]:
    """What the run in `folder` was started with. Raises UserError where that cannot be read."""
    path = folder / ".hydra" / "config.yaml"
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it is not a mapping")
    return content


def mark(folder: Path, status: str) -> None:
    """Change the status of the result in `folder`, if it has one."""
    with suppress(UserError):
        write(folder, read_json(folder / RESULT) | {"status": status})


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
    found = []
    for path, names, files in os.walk(folder):
        if ".hydra" in names or "metrics.jsonl" in files:
            found.append(Path(path))
            # What lies within a run, such as its baseline, belongs to it.
            names.clear()
    return sorted(found, key=lambda path: [(len(part), part) for part in path.parts])


def labels(jobs: Iterable[Iterable[str]]) -> list[str]:
    """What sets each job apart from the others by its overrides, such as "agent.beta=0.1 seed=2"."""
    known = [parsed(overrides) for overrides in jobs]
    names = dict.fromkeys(name for job in known for name in job)
    varied = [name for name in names if len({job.get(name) for job in known}) > 1]
    return [" ".join(f"{name}={_short(job[name])}" for name in varied if name in job) for job in known]


def _short(value: str) -> str:
    """A number without the digits that nobody reads."""
    try:
        return value if len(value) < 8 else f"{float(value):.4g}"
    except ValueError:
        return value


def leaves(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a configuration by dotted name."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
