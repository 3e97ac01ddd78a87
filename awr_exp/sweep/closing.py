"""The end of a sweep: its jobs in order of their returns."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus

from awr_exp import results, shell
from awr_exp.errors import UserError
from awr_exp.report.runs import ESTIMATE, RETURN, findings
from awr_exp.training.progress import closing_table

log = logging.getLogger(__name__)
MOST, BEST, FAILURES = 40, 20, 5
"""Jobs that are all told; and of more, how many of the best and of those that failed."""
HELD_OUT, LOSS = "heldout/weighted_nll", "heldout/weighted_loss"


def show(
    folder: Path,
    jobs: Sequence[Sequence[str]],
    places: Sequence[Path],
    returns: Mapping[int, JobReturn],
) -> bool:
    """Print a table of the sweep's jobs, best first, and where they are; True if any failed.

    jobs, places: the overrides and the folder of each; returns: what came back of those that were launched, by number.
    """
    runs = [results.read(place) for place in places]
    for number, result in returns.items():
        if result.status == JobStatus.FAILED:
            error = str(result._return_value).removeprefix("error: ")
            runs[number] = replace(runs[number], status=results.FAILED, error=error)
    notes = [("sweep", str(near := shell.near(folder)))]
    depths = sorted({len(place.relative_to(folder).parts) for place in places if place.is_relative_to(folder)})
    patterns = ["/".join([*"*" * depth, "wandb", "offline-run-*"]) for depth in depths]
    offline = [f"{shell.words(str(near))}/{pattern}" for pattern in patterns if next(folder.glob(pattern), None)]
    if offline:
        notes.append(("W&B upload", shell.Paste(" ".join([shell.command("sync", module="wandb"), *offline]))))
    unfinished = sum(run.status in (results.STOPPED, results.UNFINISHED) for run in runs)
    if unfinished:
        resume = shell.override("sweep.resume", folder.absolute())
        again = shell.once_more(resume, without=["hydra.sweep.dir"])
        notes.append((f"{unfinished} of {len(runs)} jobs are not finished, go on with", again))
    page, answers = _report(folder)
    if page:
        notes = [*(("answer", answer) for answer in answers), *notes, ("report", str(shell.near(page)))]
    table = _table(list(zip(runs, results.labels(jobs), strict=True)), folder)
    if left := len(runs) - (len(table) - 1):
        listed = shell.command(str(near), module="awr_exp.listing")
        notes.insert(0, (f"{left} others are in {'report.csv, and in ' if page else ''}the whole list", listed))
    closing_table(table, notes)
    return any(run.status == results.FAILED for run in runs)


def _table(named: Sequence[tuple[results.PastRun, str]], folder: Path) -> list[Sequence[str]]:
    """A row of titles, then one for each run with its name, the best first."""
    # By the estimates of returns where nothing was evaluated.
    heads = {RETURN: "return", ESTIMATE: "estimate", HELD_OUT: "held-out weighted NLL"}
    known = {metric for run, _ in named for metric in run.metrics}
    known |= {HELD_OUT} if LOSS in known else set()
    measured = [one for one in heads if one in known] or [RETURN]
    # Weights of other settings ask for other actions: likelihoods rank none.
    first = measured[0] if measured[0] != HELD_OUT else RETURN
    rows = [
        (
            name or run.folder.name,
            *(_shown(one, run.metrics) for one in measured),
            f"{run.status}: {run.error}" if run.error else run.status,
            os.path.relpath(run.folder, folder),
            _ill(run),
        )
        for run, name in _few(sorted(named, key=lambda one: _rank(one[0], first)))
    ]
    look_at = "look at" if any(row[-1] for row in rows) else ""
    return [["job", *map(heads.__getitem__, measured), "status", "folder", look_at], *rows]


def _few(ranked: Sequence[tuple[results.PastRun, str]]) -> Sequence[tuple[results.PastRun, str]]:
    """All of them, or of many the best and the first that failed."""
    if len(ranked) <= MOST:
        return ranked
    failed = [one for one in ranked[BEST:] if one[0].status == results.FAILED]
    return [*ranked[:BEST], *failed[:FAILURES]]


def _shown(metric: str, metrics: Mapping[str, float]) -> str:
    """A number of a run; of a head without a likelihood its loss instead."""
    if metric == HELD_OUT and LOSS in metrics:
        return f"loss {metrics[LOSS]:.4g}"
    value = metrics.get(metric)
    return f"{'–':>8}" if value is None else f"{value:8.4g}" if metric == HELD_OUT else f"{value:8.1f}"


def _ill(run: results.PastRun) -> str:
    """The number that most likely says why a run does not learn, or nothing: the report has it in a sentence."""
    return next((one.name for one in findings(run.folder, run.metrics) if one.sentence), "")


def _rank(run: results.PastRun, metric: str) -> tuple[bool, float]:
    """The key by which runs are sorted, the best first. Pruned ones were judged early and compare with no other."""
    return run.status == results.PRUNED, -run.metrics.get(metric, -math.inf)


def _report(folder: Path) -> tuple[Path | None, list[str]]:
    """The sweep's report and its answers; none where there is nothing to report or it fails, which costs it alone."""
    try:
        # Drawing takes a second to import.
        from awr_exp.report import page

        return page.write([folder], folder)
    except UserError as error:
        log.info("no report: %s", error)
    except Exception as error:
        log.warning("no report: %s: %s", type(error).__name__, error)
    return None, []
