"""One picture of how a run went, from its rows: return, value loss, and how many samples the weights use."""

import logging
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from awr_exp import results
from awr_exp.training import rows
from awr_exp.training.rows import Series

log = logging.getLogger(__name__)
# Its first use on a machine reports the making of a font list, and that there is no home to keep it in.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

CURVES = "curves.png"
_BLUE, _ORANGE, _GREEN, _GREY = "#3366aa", "#cc6633", "#338866", "#777777"


def draw(folder: Path) -> Path | None:
    """Draw `<folder>/curves.png` from the rows in `<folder>` and return its path.

    A panel without rows is left out (cloning has no value loss). Never raises: None, after one warning, if
    there is nothing to draw or drawing fails.
    """
    folder = Path(folder)
    try:
        return _draw(folder)
    except Exception as error:
        log.warning("no learning curves for %s: %s: %s", folder, type(error).__name__, error)
        return None


def _draw(folder: Path) -> Path | None:
    series, unit = rows.series(folder)
    panels = [(name, panel) for name, panel in _PANELS.items() if name in series]
    if not panels:
        log.warning("no learning curves for %s: it has no metrics to draw yet", folder)
        return None

    last = max(step for name, _ in panels for step in series[name])
    # The object interface: pyplot keeps figures for the whole process and may look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    width, height = 4.4 * len(panels), 3.3
    figure = Figure(figsize=(width, height), dpi=150)
    FigureCanvasAgg(figure)
    # Margins in inches, since a layout that finds its own takes as long again as all else, for every member of a sweep.
    margins = {"left": 0.7 / width, "right": 1 - 0.15 / width, "bottom": 0.52 / height, "top": 1 - 0.32 / height}
    grid = figure.subplots(1, len(panels), squeeze=False, gridspec_kw=margins | {"wspace": 0.23})
    for axes, (name, panel) in zip(grid[0], panels, strict=True):
        panel(axes, name, series)
        axes.set_xlabel(unit)
        axes.set_xlim(0, 1.02 * max(last, 1))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    results.atomic_write(folder / CURVES, picture.getvalue())
    return folder / CURVES


def _line(axes: Any, series: Series, colour: str) -> None:
    # Few points want to be seen as points; a single one would not be seen at all.
    axes.plot(
        list(series),
        list(series.values()),
        color=colour,
        linewidth=1.6,
        marker="o" if len(series) <= 30 else "",
        markersize=3.5,
    )


def _returns(axes: Any, name: str, series: Mapping[str, Series]) -> None:
    mean, std = series[name], series.get("eval/return_std", {})
    _line(axes, mean, _BLUE)
    spread = [std.get(update, 0.0) for update in mean]
    low = [value - width for value, width in zip(mean.values(), spread, strict=True)]
    high = [value + width for value, width in zip(mean.values(), spread, strict=True)]
    axes.fill_between(list(mean), low, high, color=_BLUE, alpha=0.15, linewidth=0)
    for reference, label, colour in (("dataset", "data", _GREY), ("baseline", "baseline", _ORANGE)):
        level = series.get(f"{reference}/return_mean")
        if level:
            value = list(level.values())[-1]
            style = ",.0f" if abs(value) >= 100 else ".3g"
            axes.axhline(value, color=colour, linestyle="--", linewidth=1.2, label=f"{label} {value:{style}}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize="small")
    axes.set_title("evaluation return, mean ± std", fontsize="medium")


def _value_loss(axes: Any, name: str, series: Mapping[str, Series]) -> None:
    _line(axes, series[name], _ORANGE)
    low, high = min(series[name].values()), max(series[name].values())
    # Within a decade a logarithmic axis has no round number to label.
    if low > 0 and high >= 10 * low:
        axes.set_yscale("log")
    axes.set_title("value loss", fontsize="medium")


def _ess(axes: Any, name: str, series: Mapping[str, Series]) -> None:
    _line(axes, series[name], _GREEN)
    if clipped := series.get("train/clipped"):
        # Where most weights are at max_weight, the other curve is high for no good reason.
        axes.plot(
            list(clipped), list(clipped.values()), color=_GREY, linewidth=1.2, linestyle=":", label="share clipped"
        )
        axes.legend(frameon=False, fontsize="small")
    axes.set_ylim(0, 1.05)
    axes.set_title("effective sample size of the weights", fontsize="medium")


_PANELS: Mapping[str, Callable[[Any, str, Mapping[str, Series]], None]] = {
    "eval/return_mean": _returns,
    "train/value_loss": _value_loss,
    "train/ess": _ess,
}
