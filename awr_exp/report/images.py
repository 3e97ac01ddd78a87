"""Panels as PNG files, drawn by Matplotlib."""

import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from awr_exp.report.drawing import Axis, Panel, Trace, Values
from awr_exp.report.settings import LONGEST

# Its first use on a machine reports the making of a font list.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that the colour-blind can tell (Okabe and Ito 2008), as in page.css."""
BACKGROUND, GREY = "#b0b4ba", "#777777"
MARKERS = "osD^vP"
STYLES: dict[str, dict[str, Any]] = {
    "runs": {"linestyle": "", "alpha": 0.45, "markersize": 4, "zorder": 2},
    "means": {"linestyle": "", "markersize": 6, "zorder": 4},
    "curve": {"linewidth": 1.6, "zorder": 3},
    "thin": {"linewidth": 0.8, "alpha": 0.35, "zorder": 2},
    "steps": {"linewidth": 1.6, "drawstyle": "steps-post", "zorder": 3},
    "join": {"linewidth": 1.2, "alpha": 0.7, "zorder": 1},
}
MOST = 14
"""Names that a legend has room for."""


def png(panels: Sequence[Panel]) -> bytes:
    """A picture of the panels, side by side."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        # Of characters that the font has no picture of.
        warnings.simplefilter("ignore")
        drawn(panels).savefig(image, format="png", dpi=110)
    return image.getvalue()


def drawn(panels: Sequence[Panel]) -> Figure:
    """A figure of the panels, side by side."""
    size = (7.0, 3.6) if len(panels) == 1 else (14.0, 2.6)
    figure = Figure(figsize=size, layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        _draw(panel, axes)
    return figure


def _draw(panel: Panel, axes: Any) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    for trace in panel.traces:
        _trace(trace, axes)
    for level in panel.levels:
        style = {"color": GREY, "linewidth": 1.1, "linestyle": {"dash": "--", "dot": ":"}[level.dash]}
        if level.shown:
            axes.axhline(level.value, label=_text(level.label), **style)
        else:
            axes.plot([], [], " ", label=_text(level.label))
    for one, which in ((panel.x, "x"), (panel.y, "y")):
        _axis(one, which, axes)
    axes.set_title(panel.title, fontsize="medium")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if 0 < len(once) <= MOST:
        axes.legend(once.values(), once.keys(), frameon=False, fontsize="small", ncols=1 + len(once) // 8)


def _trace(trace: Trace, axes: Any) -> None:
    colour = BACKGROUND if trace.colour is None else PALETTE[trace.colour]
    x, y, low, high = (_numbers(values) for values in (trace.x, trace.y, trace.low, trace.high))
    named = trace.label and trace.kind != "thin"
    style = STYLES[trace.kind] | {"color": colour, "label": _text(trace.label) if named else None}
    if trace.kind in ("runs", "means") or (trace.kind == "curve" and len(x) <= 30):
        style |= {"marker": "o" if trace.colour is None else MARKERS[trace.colour]}
    if trace.kind == "curve":
        style |= {"markersize": 3}
    axes.plot(x, y, **style)
    if not len(low):
        return
    if trace.kind == "means":
        axes.errorbar(x, y, np.abs([y - low, high - y]), color=colour, linestyle="", capsize=3, zorder=3)
    else:
        step = "post" if trace.kind == "steps" else None
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0, step=step)


def _axis(one: Axis, which: str, axes: Any) -> None:
    setting = getattr(axes, f"set_{which}scale"), getattr(axes, f"set_{which}lim"), getattr(axes, f"set_{which}label")
    scale, limits, label = setting
    if one.log:
        scale("log")
    else:
        axes.ticklabel_format(axis=which, useOffset=False)
    limits(*one.limits)
    label(_text(one.title))
    if one.ticks:
        places, names = zip(*one.ticks, strict=True)
        slanted = {"rotation": 20, "ha": "right"} if max(map(len, names)) > 8 else {}
        getattr(axes, f"set_{which}ticks")(places, list(map(_text, names)), **slanted)
        getattr(axes, f"set_{which}ticks")([], minor=True)


def _numbers(values: Values) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _text(words: str) -> str:
    """The text as pictures can show it: a dollar would begin a formula, and some characters have no picture."""
    shown = words if len(words) <= 2 * LONGEST else f"{words[: 2 * LONGEST]}…"
    return "".join(c if c.isprintable() else "?" for c in shown).replace("$", "\\$").lstrip("_")
