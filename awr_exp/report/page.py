"""One self-contained page, the same pictures as PNG files, and the runs as CSV."""

import base64
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from matplotlib.figure import Figure

from awr_exp import results
from awr_exp.errors import UserError, printable
from awr_exp.report import comparison, figures, tables, verdict
from awr_exp.report.comparison import Comparison
from awr_exp.report.statistics import ENOUGH
from awr_exp.training import rows

# Its first use on a machine reports the making of a font list.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
log = logging.getLogger(__name__)

PAGE, TABLE, PICTURES = "report.html", "report.csv", "report"

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.3rem; margin-top: 2.6rem; }
h3 { font-size: 1.1rem; margin-top: 2rem; }
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


def place(folders: Sequence[Path]) -> Path:
    """The folder of a report that is not told one: the sweep's; else, since a run's is its own, a new one."""
    (only, *others) = folders
    if not others and not _is_run(only) and any(path.parent == only for path in results.folders(only)):
        return only
    return Path("outputs", "reports", f"{datetime.now():%Y-%m-%d}", f"{datetime.now():%H-%M-%S-%f}")


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (rows.METRICS, results.RESULT, ".hydra"))


def write(folders: Sequence[Path], out: Path) -> tuple[Path, list[str]]:
    """Write report.html, report.csv and report/*.png into `out`; the page's path, and its answer, a line a task.

    Raises UserError if a folder holds no results, or if `out` is a run's own folder or cannot be written.
    """
    if _is_run(out):
        raise UserError(f"{out} is the folder of a run, which is left as it is: choose another with --out")
    compared, left_out = comparison.load(folders)
    for line in left_out:
        log.warning("%s", _one_line(line))
    pictures: dict[str, bytes] = {}
    answers, sections = [], []
    for number, one in enumerate(compared):
        said, section, images = _section(one)
        of_task, mark = (f"{one.task}: ", f"_{number}") if len(compared) > 1 else ("", "")
        pictures |= {f"{name}{mark}": png for name, png in images.items()}
        answers.append(_one_line(f"{of_task}{said}"))
        sections.append((f"<h2>{escape(one.task)}</h2>" if of_task else "") + section)
    found = [result for one in compared for result in one.found]
    notes = "".join(f'<p class="note">{escape(line)}</p>' for line in (tables.state(found), *left_out))
    body = f"<h1>{escape(', '.join(map(str, folders)))}</h1>{notes}{''.join(sections)}"
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>awr_exp report</title>'
        f"<style>{STYLE}</style></head><body>{body}<h2>All runs</h2>{tables.runs(compared, out)}"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
    _put(out, pictures, tables.rows(found), page)
    return out / PAGE, answers


def _one_line(text: str) -> str:
    """The text as one line that a terminal can show, whatever somebody named a run."""
    return " ".join(printable(text).split())


def _put(out: Path, pictures: Mapping[str, bytes], table: str, page: str) -> None:
    try:
        if (out / PICTURES).is_symlink():
            raise UserError(f"{out / PICTURES} is a link: remove it, or choose another place with --out")
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        for path in (out / PICTURES).glob("*.png"):
            if path.stem not in pictures and path.stem.partition("_")[0] in NOTES:
                # Of an earlier report, which had more to show.
                path.unlink()
        for name, png in pictures.items():
            results.atomic_write(out / PICTURES / f"{name}.png", png)
        # What somebody named a run may have characters that are none.
        results.atomic_write(out / TABLE, table.encode(errors="replace"))
        results.atomic_write(out / PAGE, page.encode(errors="replace"))
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}; choose another with --out") from None


NOTES = {
    "beta": "Every run is a point, and diamonds are interquartile means.",
    "curves": "Lines are means over the runs of a setting; thin lines are its runs, where these are few.",
    "health": "Effective sample size: near 0 a handful of rows decides, and 1 is cloning. Where most weights are "
    "clipped, that alone makes it high. Much clipped and much near zero: beta is so small that weights are a switch.",
    "profile": "The share of runs above each score.",
    "tuning": "If you may play n evaluation episodes before you must choose one of these policies: the return to "
    "expect when an upper-confidence-bound bandit spends them (Jackson et al. 2025). A number tuned with unlimited "
    "evaluation is the dotted line.",
}
INTERVALS = {
    "beta": f" Bars are 95% bootstrap intervals, of settings with {ENOUGH} runs or more.",
    "curves": f" Bands are 95% bootstrap intervals of the mean, from {ENOUGH} runs on.",
    "profile": " Bands are 95% bootstrap intervals.",
    "tuning": " The band is the 95% bootstrap interval over which policies were trained.",
}
"""What there is to say of pictures where there are enough runs."""
TITLES = {
    "beta": "How good each setting is",
    "curves": "Learning curves",
    "health": "Health of the weights at the end",
    "profile": "Performance profile",
    "tuning": "How much tuning is worth",
}


def _section(compared: Comparison) -> tuple[str, str, dict[str, bytes]]:
    """The part of one task: the answer in a few sentences, what the page shows, and the pictures in it."""
    rows = verdict.aggregate(compared)
    answer = verdict.answer(compared, rows)
    body, images = [f'<p class="answer">{escape(answer)}</p>'], {}
    tuning = figures.worth_of_tuning(compared)
    drawn: dict[str, Figure | None] = {}
    if rows:
        drawn = {
            "beta": figures.score_by_beta(compared),
            "curves": figures.learning_curves(compared),
            "health": figures.health_by_beta(compared),
            "profile": figures.performance_profile(compared),
            "tuning": tuning and tuning[0],
        }
    runs = [len(found) for found in compared.groups.values()]
    # Tuning is over all settings.
    sure = dict.fromkeys(NOTES, max(runs, default=0) >= ENOUGH) | {"tuning": min(runs, default=0) >= ENOUGH}
    below = {"beta": tables.aggregates(compared, rows), "tuning": tables.budget(tuning[1]) if tuning else ""}
    for name, figure in drawn.items():
        if figure:
            images[name] = _png(figure)
            title, image = escape(TITLES[name]), base64.b64encode(images[name]).decode()
            body.append(f'<h3>{title}</h3><img alt="{title}" src="data:image/png;base64,{image}">')
            note = NOTES[name] + (INTERVALS.get(name, "") if sure[name] else "")
            body.append(f'<p class="note">{escape(note)}</p>{below.get(name, "")}')
    return answer, "".join(body), images


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    with warnings.catch_warnings():
        # Of characters that the font has no picture of.
        warnings.simplefilter("ignore")
        figure.savefig(image, format="png", dpi=110)
    return image.getvalue()
