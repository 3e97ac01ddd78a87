"""The tables of a report, each as its rows, of which the first is the head: what compares, and all runs."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awr_exp.math import diagnosis
from awr_exp.math.diagnosis import Finding
from awr_exp.report.comparison import Comparison
from awr_exp.report.runs import ESTIMATE, HELD_OUT, RECENT, RETURN, SCORE, Result

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would compute."""
METRICS = {
    name: name.partition("/")[2]
    for name in (RETURN, RECENT, SCORE, "train/ess", "train/mean_weight", "train/clipped", "train/explained_variance")
} | {
    ESTIMATE: "estimate",
    **HELD_OUT,
}
"""The metrics of the table of runs, and their heads."""
Table = Sequence[Sequence[Any]]


class Wrong(float):
    """A number that a sentence is about."""


def state(found: Sequence[Result]) -> str:
    """How the runs ended, and how many of them do not count."""
    counts = Counter(result.run.status for result in found)
    many = "run" if len(found) == 1 else "runs"
    text = f"{len(found)} {many}: " + ", ".join(f"{count} {status}" for status, count in counts.items())
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
            "95% interval of the IQM": [group.interval for group in ranked],
            "least": [float(group.scores.min()) for group in ranked],
            "best": [float(group.scores.max()) for group in ranked],
            "P(first beats it)": [group.ahead for group in ranked],
            "95% interval of P": [group.ahead_interval for group in ranked],
            "weights": [group.health or None for group in ranked],
        }
    )


def diagnoses(compared: Comparison) -> Table:
    """Make a row for each setting with which something is wrong: why it does not learn, the likeliest cause first."""
    said = {group.title: "; then: ".join(diagnosis.said(group.findings)) for group in compared.ranked}
    ill = {title: sentence for title, sentence in said.items() if sentence}
    return _table({"setting": list(ill), "diagnosis": list(ill.values())}) if ill else []


def findings(compared: Comparison) -> Table:
    """Make a row for each setting, the best first, with a column for each number that tells why it learns.

    Below the head is what of each number is healthy.
    """
    found = {group.title: {one.name: one for one in group.findings} for group in compared.ranked if group.findings}
    healthy = {one.name: one.healthy for mine in found.values() for one in mine.values()}
    columns = {name: [said, *(_judged(mine.get(name)) for mine in found.values())] for name, said in healthy.items()}
    return _table({"setting": ["healthy", *found], **columns}) if healthy else []


def _judged(one: Finding | None) -> float | Wrong | None:
    """A number, marked where it is wrong."""
    if one is None:
        return None
    return Wrong(one.value) if one.sentence else one.value


def ordered(compared: Comparison) -> list[Result]:
    """All runs of a task, the best first."""
    return sorted(compared.found, key=lambda result: (result.score is None, -(result.score or 0.0)))


def runs(compared: Comparison) -> Table:
    """Make a row for each run, the best first."""
    found = ordered(compared)
    return _table(
        {
            "run": [result.run.folder.name for result in found],
            "setting": [compared.names[result.setting] for result in found],
            "seed": [result.seed for result in found],
            "status": [": ".join(filter(None, (result.run.status, result.run.error))) for result in found],
            **{head: [result.last(name) for result in found] for name, head in METRICS.items()},
            compared.unit: [result.budget for result in found],
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


def shown(table: Table) -> list[list[str]]:
    """The cells as texts, all numbers of a column with the same digits."""
    columns = [[head, *_texts(cells)] for head, *cells in zip(*table, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)]


def numeric(table: Table) -> list[bool]:
    """Whether each column is one of numbers, which stand on the right."""
    return [
        any(isinstance(cell, int | float | tuple) and not isinstance(cell, bool) for cell in cells)
        for _, *cells in zip(*table, strict=True)
    ]


def _texts(cells: Sequence[Any]) -> list[str]:
    """A column as texts."""
    edges = [edge for cell in cells for edge in (cell if isinstance(cell, tuple) else [cell])]
    numbers = [edge for edge in edges if isinstance(edge, float) and math.isfinite(edge)]
    style = _style(max(map(abs, numbers), default=0.0))

    def text(cell: Any) -> str:
        match cell:
            case None:
                return ""
            case Wrong():
                return f"{format(float(cell), style)} ✗"
            case float():
                return format(cell, style)
            case (low, high):
                return f"{format(low, style)} to {format(high, style)}"
        return str(cell)

    return list(map(text, cells))


def _style(largest: float) -> str:
    """A format with three or four digits of a column's largest number; with an exponent where that is far from 1."""
    if largest and not 1e-4 <= largest < 1e7:
        return ".2e"
    size = math.floor(math.log10(largest or 1))
    return f".{2 - size if size < 0 else max(0, 3 - size)}f"
