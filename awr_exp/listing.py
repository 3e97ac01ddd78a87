"""`python -m awr_exp.listing [FOLDER]`: the runs and sweeps in a folder, newest first."""

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from awr_exp import results, shell
from awr_exp.errors import UserError, printable
from awr_exp.math import diagnosis
from awr_exp.report.runs import ESTIMATE, RETURN, findings
from awr_exp.surroundings import say
from awr_exp.training import rows

BROKEN, RUNNING = "broken", "running"
WIDTH, FOLDER = 80, 46
"""Columns of the list, and at most of a folder's name, which those of outputs/ fit into."""
SEVERAL = 6
"""The most values of a setting that are shown one by one."""
WORDS = {
    "steps unlike the data": "environment",
    "squared error of V / variance of A": "critic",
    "explained variance": "critic",
    "score of the data's best tenth": "data",
    "lead of the data's best tenth": "data",
    **dict.fromkeys((title for title, _, _ in diagnosis.ROWS.values()), "weights"),
    "distance of the policy from the data": "distance",
    "lead of samples over the mode": "modes",
    "fall from the best evaluation": "fell",
    "lead over the data's mean return": "worse",
}
"""Each number of a diagnosis in a word."""


@dataclass
class Entry:
    """A run, or a sweep with the folders of its jobs.

    changed: the settings that were given, with their values as text, those of a sweep's jobs as a list; value: the
    return of the last evaluation, or else its estimate, of a sweep the best; health: of that run; error: of a run that
    failed, or why its files cannot be read.
    """

    folder: Path
    begun: float
    status: str = BROKEN
    changed: Mapping[str, Any] = field(default_factory=dict)
    value: float | None = None
    estimated: bool = False
    health: str = ""
    error: str = ""
    update: int = 0
    env_steps: int = 0
    jobs: Mapping[str, int] = field(default_factory=dict)


def entries(folder: Path) -> list[Entry]:
    """The runs and sweeps in a folder and below, newest first; where the folder is a sweep, its jobs by number.

    Raises UserError where there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one in which there are runs, such as outputs")
    locked, single, sweeps = results.locked(), [], dict[Path, list[Path]]()
    for path in results.folders(folder):
        sweep = _sweep(path, folder)
        if sweep is None:
            single.append(path)
        else:
            sweeps.setdefault(sweep, []).append(path)
    found = [run(path, locked) for path in single]
    found += [_of_sweep(path, [run(job, locked, judged=False) for job in jobs]) for path, jobs in sweeps.items()]
    return found if _is_sweep(folder) else sorted(found, key=lambda one: one.begun, reverse=True)


def _is_sweep(folder: Path) -> bool:
    return (folder / "multirun.yaml").exists()


def _sweep(path: Path, root: Path) -> Path | None:
    """The sweep below `root` that a run is a job of, if it is one's."""
    inside = [parent for parent in path.parents if parent != root and parent.is_relative_to(root)]
    return next((parent for parent in inside if _is_sweep(parent)), None)


def run(folder: Path, locked: frozenset[int] | None = None, judged: bool = True) -> Entry:
    """What is known of a run; judged: its health, too, which takes the longest to read."""
    entry = Entry(folder, _begun(folder))
    try:
        past = results.load(folder)
        given = results.overrides(folder)
        if given is None:
            raise UserError(f"{folder / '.hydra' / 'overrides.yaml'} cannot be read: it is not a list")
    except UserError as error:
        entry.error = str(error)
        return entry
    entry.status, entry.error = past.status, past.error or ""
    if past.status == results.UNFINISHED:
        past = _so_far(past)
        entry.status = RUNNING if results.at_work(folder, locked) else past.status
    entry.changed = given | results.changed(folder)
    entry.update, entry.env_steps, metrics = past.update, past.env_steps, past.metrics
    entry.estimated = RETURN not in metrics and ESTIMATE in metrics
    entry.value = metrics.get(RETURN, metrics.get(ESTIMATE))
    if judged:
        entry.health = health(folder, metrics)
    return entry


def _so_far(run: results.PastRun) -> results.PastRun:
    """A run without a result, with what its rows tell of how far it came."""
    found = rows.last(run.folder)
    metrics = {row["name"]: row["value"] for row in found if row["value"] is not None and math.isfinite(row["value"])}
    place = {name: found[-1][name] for name in ("update", "env_steps")} if found else {}
    return replace(run, metrics=metrics, **place)


def _of_sweep(folder: Path, jobs: Sequence[Entry]) -> Entry:
    """The sweep that has these jobs."""
    counts: dict[str, int] = {}
    changed: dict[str, tuple[str, ...]] = {}
    for job in jobs:
        counts[job.status] = counts.get(job.status, 0) + 1
        for name, value in job.changed.items():
            if value not in (known := changed.get(name, ())):
                changed[name] = (*known, value)
    done = counts.get(results.FINISHED, 0) + counts.get(results.PRUNED, 0)
    status = f"{len(jobs)} done" if done == len(jobs) else f"{done}/{len(jobs)} done"
    entry = Entry(folder, max(job.begun for job in jobs), status, changed, jobs=counts)
    # Those that were given up early compare with no other.
    compared = [job for job in jobs if job.value is not None and job.status != results.PRUNED]
    if best := max(compared, key=lambda job: job.value or 0.0, default=None):
        entry.value, entry.estimated, entry.health = best.value, best.estimated, run(best.folder).health
    return entry


def health(folder: Path, metrics: Mapping[str, float]) -> str:
    """Where the likeliest cause lies why a run does not learn, in a word; "" where nothing can be judged."""
    found = findings(folder, metrics)
    return next((WORDS.get(one.name, one.name) for one in found if one.sentence), "healthy" if found else "")


def _begun(folder: Path) -> float:
    """When a run was started, in seconds since 1970."""
    for name in (".hydra/overrides.yaml", rows.METRICS, "."):
        with suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0


def told(found: Sequence[Entry], apart: bool = False) -> Iterator[str]:
    """The lines of a list: for each entry its folder and how it stands, and below it what was changed.

    apart: what all of several entries have in common is told once, at the top.
    """
    settings = [set(one.changed.items()) for one in found if one.status != BROKEN] if apart else []
    common = set.intersection(*settings) if len(settings) > 1 else set()
    if common:
        yield from _wrapped(f"all with {_settings(dict(sorted(common)))}", "")
    width = min(FOLDER, max(len(short(one.folder)) for one in found))
    yield f"{'folder':<{width}} {'status':<11} {'return':>8}  health"
    for one in found:
        folder, value = short(one.folder), "" if one.value is None else f"{'~' * one.estimated}{number(one.value)}"
        facts = f"{one.status:<11} {value:>8}  {one.health}".rstrip()
        yield from [f"{folder:<{width}} {facts}"] if len(folder) <= width else [folder, f"{'':<{width}} {facts}"]
        about = _settings({name: value for name, value in one.changed.items() if (name, value) not in common})
        if len(one.jobs) > 1:
            about = f"({', '.join(f'{count} {status}' for status, count in one.jobs.items())}) {about}"
        for text in filter(None, (about, one.error)):
            yield from _wrapped(text)


def _wrapped(text: str, indent: str = "    ") -> list[str]:
    return textwrap.wrap(
        printable(text), WIDTH, initial_indent=indent, subsequent_indent="    ", max_lines=3,
        break_long_words=False, break_on_hyphens=False, placeholder=" ...",
    )  # fmt: skip


def _settings(changed: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in changed.items())


def _value(value: Any) -> str:
    """A value, or those of a sweep."""
    if isinstance(value, str):
        return value
    return ",".join(value) if len(value) <= SEVERAL else f"<{len(value)} values>"


def number(value: float) -> str:
    """A number in seven characters, if it is one of usual size."""
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.3g}" if size < 100 else f"{value:.{1 if size < 1e4 else 0}f}"


def short(folder: Path) -> str:
    """A folder as seen from here, if it is below."""
    return printable(str(shell.near(folder.absolute())))


def as_json(found: Iterable[Entry]) -> str:
    """The entries as a JSON list of objects; what is not known is null."""
    listed = []
    for one in found:
        content = asdict(one) | {"folder": str(one.folder), "begun": datetime.fromtimestamp(one.begun).isoformat()}
        content["return"], content["kind"] = content.pop("value"), "sweep" if one.jobs else "run"
        listed.append({name: None if value == "" else value for name, value in content.items()})
    return json.dumps(listed, indent=1)


def main(arguments: list[str] | None = None) -> None:
    """Print the list; ends with one line and exit code 1 if there is no such folder."""
    parser = argparse.ArgumentParser(prog="awr-exp list", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("outputs"), metavar="FOLDER",
        help="of runs and sweeps, or of one sweep, whose jobs are then listed; else outputs",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a JSON list of objects, for programs")
    options = parser.parse_args(arguments)
    try:
        found = entries(options.folder)
    except UserError as error:
        sys.exit(f"error: {error}")
    without = [f"there are no runs in {short(options.folder)}"]
    say([as_json(found)] if options.json else told(found, apart=_is_sweep(options.folder)) if found else without)


if __name__ == "__main__":
    main()
