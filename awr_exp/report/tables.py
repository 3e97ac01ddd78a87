"""The tables of a report: what compares, all runs, and all runs as CSV."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from awr_exp.report import settings, verdict
from awr_exp.report.comparison import Comparison
from awr_exp.report.figures import Budget
from awr_exp.report.runs import RETURN, SCORE, Result
from awr_exp.report.statistics import Interval

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How what a spreadsheet computes begins."""
METRICS = (RETURN, SCORE, "train/ess", "train/mean_weight", "train/clipped", "train/explained_variance")


def state(found: Sequence[Result]) -> str:
    """How the runs ended, and how many of them do not count."""
    counts = Counter(result.run.status for result in found)
    text = f"{len(found)} runs: " + ", ".join(f"{count} {status}" for status, count in counts.items())
    silent = sum(result.budget is None for result in found)
    elsewhere = sum(result.score is None for result in found) - silent
    for count, what in ((silent, "without an evaluation"), (elsewhere, "judged at another budget")):
        text += f"; {count} {what}, left out of all statistics" if count else ""
    return f"{text}."


def aggregates(compared: Comparison, rows: Sequence[verdict.Row]) -> str:
    """A row a setting that compares; columns without content are left out."""
    columns = {
        "setting": [_named(compared, row.setting) for row in rows],
        "runs": [str(row.runs) for row in rows],
        f"IQM of {compared.kind}": [_number(row.iqm) for row in rows],
        "95% interval of the IQM": [_range(row.interval) for row in rows],
        "least": [_number(row.low) for row in rows],
        "best": [_number(row.high) for row in rows],
        "P(first beats it)": [_number(row.ahead) for row in rows],
        "95% interval of P": [_range(row.ahead_interval) for row in rows],
        "weights": [(row.judgement.state if row.judgement else "healthy") if row.weighted else "" for row in rows],
    }
    shown = {head: cells for head, cells in columns.items() if any(cells)}
    return _table(list(shown), zip(*shown.values(), strict=True))


def _named(compared: Comparison, setting: settings.Setting) -> str:
    """Its name, and in full what a number stands for."""
    name = compared.names[setting]
    return f"{name}: {settings.name(setting, full=True)}" if settings.is_number(name) else name


def budget(rows: Budget) -> str:
    """The worth of tuning."""
    sure = any(edges for _, edges in rows.values())
    body = [[str(n), _number(mean), *([_range(edges)] if sure else [])] for n, (mean, edges) in rows.items()]
    return _table(["evaluation episodes", "return to expect", *(["95% interval"] if sure else [])], body)


def runs(compared: Sequence[Comparison], out: Path) -> str:
    """All runs, the best of each task first, with their folders as seen from `out`."""
    head = ["run", "setting", "task", "seed", "status", *(name.partition("/")[2] for name in METRICS), "judged at"]
    rows = [(one, result) for one in compared for result in one.found]
    body = [
        [
            os.path.relpath(result.run.folder, out),
            one.names[result.setting],
            result.task,
            str(result.seed),
            f"{result.run.status}: {result.run.error}" if result.run.error else result.run.status,
            *(_number(result.last(name)) for name in METRICS),
            "" if result.budget is None else f"{result.budget} {result.unit}",
        ]
        for one, result in sorted(rows, key=lambda row: (row[0].task, row[1].score is None, -(row[1].score or 0.0)))
    ]
    return _table(head, body)


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    def cell(text: str) -> str:
        number = text.replace(".", "").replace("-", "").replace("e", "").replace("+", "").isdigit()
        return f"<td{' class=number' if number else ''}>{escape(text)}</td>"

    heads = "".join(f"<th>{escape(name)}</th>" for name in head)
    rows = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in body)
    table = f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def rows(found: Sequence[Result]) -> str:
    """Of report.csv: all runs, their settings and the last of each metric."""
    names = list(dict.fromkeys(name for result in found for name, _ in result.setting))
    metrics = sorted({name for result in found for name in result.series})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    body: list[list[Any]] = [["folder", "status", "error", "task", "seed", *names, *metrics]]
    for result in found:
        setting = dict(result.setting)
        about = [result.run.folder, result.run.status, result.run.error, result.task, result.seed]
        body.append([*about, *(setting.get(name) for name in names), *map(result.last, metrics)])
    table.writerows(map(_cell, row) for row in body)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """The value as it is, but for texts that a spreadsheet would take for a formula."""
    if isinstance(value, int | float) or value is None:
        return value
    return f"'{value}" if str(value).startswith(FORMULA) else value


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _range(edges: Interval | None) -> str:
    return "" if edges is None else f"{edges[0]:.4g} to {edges[1]:.4g}"
