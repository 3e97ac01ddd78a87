"""One self-contained page, the same pictures as PNG files, and the runs as CSV."""

import base64
import csv
import io
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.report import figures, runs, verdict
from awr_exp.report.runs import RETURN, SCORE, Result
from awr_exp.report.statistics import Interval

# Its first use on a machine reports the making of a font list.
logging.getLogger("matplotlib").setLevel(logging.WARNING)

PAGE, TABLE, PICTURES = "report.html", "report.csv", "report"
METRICS = (RETURN, SCORE, "train/ess", "train/mean_weight", "train/clipped", "train/explained_variance")

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.answer { font-size: 1.15rem; border-left: 4px solid #3366aa; padding: .4rem 1rem; background: #f3f6fb; }
img { max-width: 100%; } .note { color: #666; font-size: .9rem; }
table { border-collapse: collapse; font-size: .9rem; } td, th { padding: .25rem .8rem; border-bottom: 1px solid #ddd; }
th { cursor: pointer; text-align: left; user-select: none; white-space: nowrap; }
th[aria-sort=ascending]::after { content: " \\2191"; } th[aria-sort=descending]::after { content: " \\2193"; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } .scroll { overflow-x: auto; }
"""
SCRIPT = """
document.querySelectorAll("table.sortable th").forEach((head) => head.addEventListener("click", () => {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)], [m, n] = [parseFloat(x), parseFloat(y)];
    if (isNaN(m) || isNaN(n)) return isNaN(m) && isNaN(n) ? x.localeCompare(y) : isNaN(m) ? 1 : -1;
    return down ? n - m : m - n;
  };
  [...body.rows].sort(compare).forEach((row) => body.append(row));
}));
"""


def write(folders: Sequence[Path], out: Path) -> tuple[Path, str]:
    """Write report.html, report.csv and report/*.png into `out`; the page's path and its answer in a sentence.

    Raises UserError if a folder holds no results or `out` cannot be written.
    """
    found, kind = runs.load(folders)
    grouped = runs.groups(found)
    tasks = sorted({result.task for result in found if result.score is not None})
    rows = verdict.aggregate(grouped, tasks)
    early = sum(result.run.status != results.FINISHED for result in found if result.score is not None)
    answer = verdict.sentence(rows, kind, early)
    pictures: dict[str, tuple[str, Figure]] = {
        "beta": (f"{kind.capitalize()} against beta, every run a point", figures.score_by_beta(grouped, tasks, kind)),
        "curves": ("Learning curves", figures.learning_curves(grouped, tasks)),
    }
    if health := figures.health_by_beta(grouped):
        pictures["health"] = ("Health of the weights at the end", health)
    pictures["profile"] = ("Performance profile", figures.performance_profile(grouped, tasks, kind))
    budgets = {task: budget for task in tasks if (budget := figures.worth_of_tuning(found, task))}
    for number, (task, (figure, _)) in enumerate(budgets.items()):
        pictures[f"tuning_{number}" if len(budgets) > 1 else "tuning"] = (f"How much tuning is worth: {task}", figure)

    images = {name: _png(figure) for name, (_, figure) in pictures.items()}
    body = [f"<h1>{escape(', '.join(map(str, folders)))}</h1>", f'<p class="answer">{escape(answer)}</p>']
    body.append(f'<p class="note">{escape(_state(found))}</p>')
    for name, (title, _) in pictures.items():
        image = base64.b64encode(images[name]).decode()
        body.append(f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/png;base64,{image}">')
        body.append(f'<p class="note">{escape(NOTES.get(name.partition("_")[0], ""))}</p>')
        if name == "beta":
            body.append(_aggregates(rows, kind))
    body += [_budget(task, numbers) for task, (_, numbers) in budgets.items()]
    body.append("<h2>All runs</h2>" + _runs(found, out))
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>awr_exp report</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}<script>{SCRIPT}</script></body></html>\n"
    )
    try:
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        for name, png in images.items():
            results.put(out / PICTURES / f"{name}.png", png)
        results.put(out / TABLE, _csv(found).encode())
        results.put(out / PAGE, page.encode())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}; choose another with --out") from None
    return out / PAGE, answer


NOTES = {
    "beta": "Diamonds are interquartile means, bars their 95% bootstrap intervals.",
    "curves": "Mean over seeds; the band is the 95% bootstrap interval of the mean.",
    "health": "Effective sample size: 1 is cloning, near 0 a handful of rows decides. Much clipped and much near zero: "
    "beta is so small that the weights are a switch.",
    "profile": "The share of runs above each score, with 95% bootstrap bands.",
    "tuning": "If you may play n evaluation episodes before you must choose one of these policies: the return to "
    "expect when an upper-confidence-bound bandit spends them (Jackson et al. 2025). The band is the 95% bootstrap "
    "interval over which policies were trained. A number tuned with unlimited evaluation is the dotted line.",
}


def _state(found: Sequence[Result]) -> str:
    counts = Counter(result.run.status for result in found)
    silent = sum(result.score is None for result in found)
    text = f"{len(found)} runs: " + ", ".join(f"{count} {status}" for status, count in counts.items())
    return text + (f"; {silent} without an evaluation, left out of all statistics." if silent else ".")


def _aggregates(rows: Sequence[verdict.Row], kind: str) -> str:
    head = ["setting", "runs", f"IQM of {kind}", "95% interval", "mean", "P(best beats it)", "95% interval"]
    body = [
        [
            runs.name(row.setting),
            str(row.runs),
            _number(row.iqm),
            _range(row.interval),
            _number(row.mean),
            _number(row.improvement),
            _range(row.improvement_interval),
        ]
        for row in rows
    ]
    return _table(head, body)


def _budget(task: str, numbers: dict[int, tuple[float, float, float]]) -> str:
    body = [[str(n), _number(mean), _range((low, high))] for n, (mean, low, high) in numbers.items()]
    head = ["evaluation episodes", "return to expect", "95% interval"]
    return f'<p class="note">{escape(task)}</p>' + _table(head, body)


def _runs(found: Sequence[Result], out: Path) -> str:
    head = ["run", "setting", "task", "seed", "status", *(name.partition("/")[2] for name in METRICS)]
    body = [
        [
            os.path.relpath(result.run.folder, out),
            runs.name(result.setting),
            result.task,
            str(result.seed),
            f"{result.run.status}: {result.run.error}" if result.run.error else result.run.status,
            *(_number(result.last(name)) for name in METRICS),
        ]
        for result in sorted(found, key=lambda r: (r.score is None, -(r.score or 0.0)))
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


def _csv(found: Sequence[Result]) -> str:
    names = list(dict.fromkeys(name for result in found for name, _ in result.setting))
    metrics = sorted({name for result in found for name in result.series})
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["folder", "status", "error", "task", "seed", *names, *metrics])
    for result in found:
        setting = dict(result.setting)
        about = [result.run.folder, result.run.status, result.run.error or "", result.task, result.seed]
        table.writerow([*about, *(setting.get(name, "") for name in names), *(_text(result.last(m)) for m in metrics)])
    return text.getvalue()


def _text(value: float | None) -> str:
    return "" if value is None else repr(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _range(edges: Interval | None) -> str:
    return "" if edges is None else f"{edges[0]:.4g} to {edges[1]:.4g}"


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()
