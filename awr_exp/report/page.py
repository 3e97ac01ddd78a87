"""One self-contained page, the same pictures as PNG files, and the runs as CSV."""

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from awr_exp import origin, results
from awr_exp.errors import UserError, printable, unwritable
from awr_exp.report import about, comparison, images, tables, verdict
from awr_exp.report.comparison import Comparison
from awr_exp.report.drawing import Panel, as_json
from awr_exp.report.figures import FIGURES, compared_colours
from awr_exp.report.rendering import rendered
from awr_exp.report.runs import Result
from awr_exp.report.statistics import ENOUGH
from awr_exp.training import rows

log = logging.getLogger(__name__)

PAGE, TABLE, PICTURES = "report.html", "report.csv", "report"
TEMPLATE = Path(__file__).with_name("page.html")
Panels = Mapping[str, Sequence[Panel]]


def place(folders: Sequence[Path]) -> Path:
    """The folder of a report that is not told one: the sweep's; else, since a run's is its own, a new one."""
    (only, *others) = folders
    if not others and not _is_run(only) and any(path.parent == only for path in results.folders(only)):
        return only
    return Path("outputs/reports", f"{datetime.now():%Y-%m-%d/%H-%M-%S-%f}")


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
    answers = [verdict.answer(one) for one in compared]
    drawn = [{name: draw(one) for name, draw in FIGURES.items()} for one in compared]
    found = [result for one in compared for result in one.found]
    content = rendered(
        TEMPLATE,
        title=compared[0].task if len(compared) == 1 else f"{len(compared)} tasks",
        state=tables.state(found),
        facts=about.facts(folders, found),
        left_out=left_out,
        tasks=[_section(*one, out) for one in zip(compared, answers, drawn, strict=True)],
        enough=ENOUGH,
    )
    marks, names = [""], [""]
    if len(compared) > 1:
        marks, names = [f"_{number}" for number in range(len(compared))], [f"{one.task}: " for one in compared]
    pictures = {
        name + mark: images.png(panels)
        for mark, mine in zip(marks, drawn, strict=True)
        for name, panels in mine.items()
        if panels
    }
    _put(out, pictures, tables.as_csv(compared), content)
    return out / PAGE, [_one_line(name + said) for name, said in zip(names, answers, strict=True)]


def _section(compared: Comparison, answer: str, drawn: Panels, out: Path) -> dict[str, Any]:
    """What the template shows of a task."""
    made = {name: getattr(tables, name)(compared) for name in ("groups", "diagnoses", "findings", "runs")}
    found, colours = tables.ordered(compared), compared_colours(compared)
    return {
        "compared": compared,
        "answer": answer,
        "panels": {name: list(map(as_json, panels)) for name, panels in drawn.items()},
        "numbers": {name: tables.numeric(table) for name, table in made.items()},
        "colours": [colours[group.setting] for group in compared.ranked],
        "run_colours": [colours[result.setting] for result in found],
        "links": [_links(result, out) for result in found],
        **{name: tables.shown(table) for name, table in made.items()},
    }


def _links(result: Result, out: Path) -> list[tuple[str, str]]:
    """Where a run is: its folder as seen from the page, and its page on W&B, if that is known."""
    folder = result.run.folder
    # Without ./ a name with a colon would be another protocol.
    links = [(folder.name or str(folder), f"./{quote(os.path.relpath(folder, out), errors='replace')}")]
    url = origin.read(folder).url
    return [*links, ("W&B", url)] if url else links


def _one_line(text: str) -> str:
    """The text as one line that a terminal can show, whatever somebody named a run."""
    return " ".join(printable(text).split())


def _put(out: Path, pictures: Mapping[str, bytes], table: str, page: str) -> None:
    try:
        if (out / PICTURES).is_symlink():
            raise UserError(f"{out / PICTURES} is a link: remove it, or choose another place with --out")
        (out / PICTURES).mkdir(parents=True, exist_ok=True)
        for path in (out / PICTURES).glob("*.png"):
            if path.stem not in pictures and path.stem.partition("_")[0] in FIGURES:
                # Of an earlier report, which had more to show.
                path.unlink()
        for name, png in pictures.items():
            results.atomic_write(out / PICTURES / f"{name}.png", png)
        # What somebody named a run may have characters that are none.
        results.atomic_write(out / TABLE, table.encode(errors="replace"))
        results.atomic_write(out / PAGE, page.encode(errors="replace"))
    except OSError as error:
        raise unwritable(out, error, "choose another with --out") from None
