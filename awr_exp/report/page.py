"""One self-contained page, the same pictures as PNG files, and the runs as CSV."""

import base64
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Template
from matplotlib.figure import Figure

from awr_exp import results
from awr_exp.errors import UserError, printable
from awr_exp.report import comparison, tables, verdict
from awr_exp.report.comparison import Comparison
from awr_exp.report.figures import FIGURES
from awr_exp.report.statistics import ENOUGH
from awr_exp.training import rows

# Its first use on a machine reports the making of a font list.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
log = logging.getLogger(__name__)

PAGE, TABLE, PICTURES = "report.html", "report.csv", "report"
TEMPLATE = Path(__file__).with_name("page.html")


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
    drawn = [_pictures(one) for one in compared]
    page = Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True, trim_blocks=True).render(
        title=", ".join(map(str, folders)),
        notes=[tables.state([result for one in compared for result in one.found]), *left_out],
        tasks=list(zip(compared, answers, drawn, strict=True)),
        runs=tables.runs(compared, out),
        tables=tables,
        encoded=lambda png: base64.b64encode(png).decode(),
        enough=ENOUGH,
    )
    marks, names = [""], [""]
    if len(compared) > 1:
        marks, names = [f"_{number}" for number in range(len(compared))], [f"{one.task}: " for one in compared]
    pictures = {name + mark: png for mark, images in zip(marks, drawn, strict=True) for name, png in images.items()}
    _put(out, pictures, tables.as_csv(compared), page)
    return out / PAGE, [_one_line(name + said) for name, said in zip(names, answers, strict=True)]


def _pictures(compared: Comparison) -> dict[str, bytes]:
    """The pictures of a comparison as PNG files, by name."""
    drawn = {name: draw(compared) for name, draw in FIGURES.items()} if compared.groups else {}
    return {name: _png(figure) for name, figure in drawn.items() if figure}


def _png(figure: Figure) -> bytes:
    image = io.BytesIO()
    with warnings.catch_warnings():
        # Of characters that the font has no picture of.
        warnings.simplefilter("ignore")
        figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


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
        raise UserError(f"{out} cannot be written: {error.strerror or error}; choose another with --out") from None
