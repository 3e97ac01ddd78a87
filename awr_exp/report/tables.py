"""The tables of a report, each as its rows, of which the first is the head: what compares, and all runs."""

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awr_exp.math import diagnosis
from awr_exp.math.diagnosis import Finding
from awr_exp.report.comparison import Comparison
from awr_exp.report.runs import ESTIMATE, RECENT, RETURN, SCORE, Result
from awr_exp.report.statistics import Interval

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would compute."""
METRICS = {
    name: name.partition("/")[2]
    for name in (RETURN, RECENT, SCORE, "train/ess", "train/mean_weight", "train/clipped", "train/explained_variance")
} | {
    ESTIMATE: "estimate",
    "heldout/nll": "held-out NLL",
    "heldout/weighted_nll": "held-out weighted NLL",
    "heldout/loss": "held-out loss",
    "heldout/weighted_loss": "held-out weighted loss",
    "heldout/value_error": "held-out value error",
}
"""The metrics of the table of runs, and their heads."""
PULLS = (1, 5, 10, 20, 50)
"""Evaluation episodes of the table of tuning."""
Table = Sequence[Sequence[Any]]


def state(found: Sequence[Result]) -> str:
    """How the runs ended, and how many of them do not count."""
    counts = Counter(result.run.status for result in found)
    text = f"{len(found)} runs: " + ", ".join(f"{count} {status}" for status, count in counts.items())
    silent = sum(result.budget is None for result in found)
    elsewhere = sum(result.score is None for result in found) - silent
    for count, what in ((silent, "without an evaluation"), (elsewhere, "judged at another budget")):
        text += f"; {count} {what}, left out of all statistics" if count else ""
    return f"{text}."


def groups(compared: Comparison) -> Table:
    """Make a row for each setting that compares, the best first."""
    ranked = compared.ranked
    return _table(
        {
            "setting": [group.title for group in ranked],
            "runs": [len(group.runs) for group in ranked],
            f"IQM of {compared.kind}": [group.iqm for group in ranked],
            "95% interval of the IQM": [_range(group.interval) for group in ranked],
            "least": [group.scores.min() for group in ranked],
            "best": [group.scores.max() for group in ranked],
            "P(first beats it)": [group.ahead for group in ranked],
            "95% interval of P": [_range(group.ahead_interval) for group in ranked],
            "weights": [group.health or None for group in ranked],
        }
    )


def diagnoses(compared: Comparison) -> Table:
    """Make a row for each setting of which anything can be judged: why it does not learn, the likeliest cause first."""
    groups = [group for group in compared.ranked if group.findings]
    said = ["; then: ".join(diagnosis.said(group.findings)) or "nothing found" for group in groups]
    return _table({"setting": [group.title for group in groups], "diagnosis": said})


def findings(compared: Comparison) -> Table:
    """Make a row for each number that tells why a setting learns, with a column for each setting, the best first."""
    found = {group.name: {one.name: one for one in group.findings} for group in compared.ranked}
    every = {one.name: one.healthy for mine in found.values() for one in mine.values()}
    columns = {name: [_marked(mine.get(row)) for row in every] for name, mine in found.items()}
    return _table({"number": list(every), "healthy": list(every.values()), **columns}) if every else []


def _marked(one: Finding | None) -> str | None:
    """A number, with a mark where it is wrong."""
    return f"{one.value:.3g}{' ✗' if one.sentence else ''}" if one else None


def tuning(compared: Comparison) -> Table:
    """Make a row for some numbers of evaluation episodes, with intervals if all settings have enough runs for these."""
    if compared.tuning is None:
        return []
    mean, low, high = (values[[n - 1 for n in PULLS]] for values in compared.tuning)
    ranges = [_range(edges) if compared.sure else None for edges in zip(low, high, strict=True)]
    return _table({"evaluation episodes": PULLS, "return to expect": mean.tolist(), "95% interval": ranges})


def runs(compared: Sequence[Comparison], out: Path) -> Table:
    """Make a row for each run, the best of each task first, with its folder as seen from `out`."""
    rows = [(one, result) for one in compared for result in one.found]
    rows.sort(key=lambda row: (row[0].task, row[1].score is None, -(row[1].score or 0.0)))
    found = [result for _, result in rows]
    return _table(
        {
            "run": [os.path.relpath(result.run.folder, out) for result in found],
            "setting": [one.names[result.setting] for one, result in rows],
            "task": [one.task for one, _ in rows],
            "seed": [result.seed for result in found],
            "status": [": ".join(filter(None, (result.run.status, result.run.error))) for result in found],
            **{head: [result.last(name) for result in found] for name, head in METRICS.items()},
            "judged at": [None if r.budget is None else f"{r.budget} {r.unit}" for r in found],
        }
    )


def _table(columns: Mapping[str, Sequence[Any]]) -> Table:
    """Make rows of columns that are given by their heads; columns in which there is nothing are left out."""
    shown = {head: cells for head, cells in columns.items() if any(cell is not None for cell in cells)}
    return [list(shown), *zip(*shown.values(), strict=True)] if shown else []


def as_csv(compared: Sequence[Comparison]) -> str:
    """Write all runs with their settings and the last value of each metric, as the text of report.csv."""
    found = [(one.task, result) for one in compared for result in one.found]
    names = list(dict.fromkeys(name for _, result in found for name, _ in result.setting))
    metrics = sorted({name for _, result in found for name in result.series})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(_cell, ["folder", "status", "error", "task", "seed", *names, *metrics]))
    for task, result in found:
        about = [result.run.folder, result.run.status, result.run.error, task, result.seed]
        setting = dict(result.setting)
        table.writerow(map(_cell, [*about, *map(setting.get, names), *map(result.last, metrics)]))
    return text.getvalue()


def _cell(value: Any) -> Any:
    """The value as it is, but for texts that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str | Path) and str(value).startswith(FORMULA) else value


def _range(edges: Interval | None) -> str | None:
    return None if edges is None else f"{edges[0]:.4g} to {edges[1]:.4g}"
