"""The pictures of a comparison. Each function draws on a figure of its own, or says that there is nothing to draw."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from awr_exp.report import statistics
from awr_exp.report.comparison import Comparison, Group
from awr_exp.report.runs import RETURN
from awr_exp.report.settings import LONGEST, Setting, name
from awr_exp.report.statistics import ENOUGH, bootstrap

HEALTH = {
    "train/ess": "effective sample size",
    "train/mean_weight": "mean weight",
    "train/clipped": "share clipped",
    "train/zero_weight": "share practically zero",
}
REFERENCES = {"dataset/return_mean": ("data", "#777777"), "baseline/return_mean": ("baseline", "#cc6633")}
MOST = 14
"""Settings that a legend or an axis can name."""


def score_by_beta(compared: Comparison) -> Figure:
    """Draw each run as a point, and interquartile means over beta, or over settings, with intervals of ENOUGH runs."""
    figure, (axes,) = _panels(1)
    places, lines = _settings_along_x(axes, compared), _lines(compared)
    for (label, groups), colour in zip(lines, _colours(len(lines)), strict=True):
        x = [places[group.setting] for group in groups]
        for at, group in zip(x, groups, strict=True):
            axes.plot([at] * len(group.runs), group.scores, "o", color=colour, alpha=0.35, markersize=4, zorder=2)
        mean = [group.iqm for group in groups]
        error = np.abs(np.array([group.interval or (np.nan, np.nan) for group in groups]).T - mean)
        style = {"color": colour, "marker": "D", "markersize": 5, "capsize": 3, "zorder": 3}
        axes.errorbar(x, mean, error, label=_text(label) or None, **style)
    _roomy(axes)
    _references(axes, compared)
    _explain(axes, y=_text(compared.kind))
    return figure


def learning_curves(compared: Comparison) -> Figure:
    """Draw the score over training: each setting's mean, with its interval from ENOUGH runs on, else with its runs."""
    figure, (axes,) = _panels(1)
    metric, last = compared.metric, 1
    for (setting, label), colour in zip(compared.names.items(), _colours(len(compared.names)), strict=True):
        mine = [run for run in compared.found if run.setting == setting]
        curves = [run.series[metric] for run in mine if metric in run.series]
        if not curves:
            continue
        steps = sorted(set().union(*curves))
        last = max(last, steps[-1])
        # Seeds may be at different points of a running sweep: each point takes those that are there.
        points = [np.array([curve[step] for curve in curves if step in curve]) for step in steps]
        axes.plot(steps, [p.mean() for p in points], color=colour, marker="o", markersize=3, label=_text(label))
        edges = [
            (step, *bootstrap(p, lambda v: v.mean(-1)))
            for step, p in zip(steps, points, strict=True)
            if len(p) >= ENOUGH
        ]
        if edges:
            axes.fill_between(*np.array(edges).T, color=colour, alpha=0.12, linewidth=0)
        for curve in curves if 1 < len(curves) < ENOUGH else ():
            axes.plot(sorted(curve), [curve[s] for s in sorted(curve)], color=colour, alpha=0.3, linewidth=0.8)
    _roomy(axes)
    axes.set_xlim(0, 1.03 * last)
    _references(axes, compared)
    _explain(axes, compared.unit, _text(compared.kind))
    return figure


def health_by_beta(compared: Comparison) -> Figure | None:
    """Draw the metrics of the weights at the end of training, a point for each run."""
    everyone = [run for group in compared.groups for run in group.runs]
    measured = [metric for metric in HEALTH if any(metric in run.series for run in everyone)]
    if not measured:
        return None
    figure, panels = _panels(len(measured), height=2.6)
    for metric, axes in zip(measured, panels, strict=True):
        places = _settings_along_x(axes, compared)
        runs = [run for run in everyone if metric in run.series]
        x, y = [places[run.setting] for run in runs], [run.last(metric) for run in runs]
        axes.plot(x, y, "o", color="#338866", alpha=0.5, markersize=4)
        _roomy(axes)
        axes.set_title(HEALTH[metric], fontsize="medium")
        if metric != "train/mean_weight":
            axes.set_ylim(-0.03, 1.05)
    return figure


def performance_profile(compared: Comparison) -> Figure | None:
    """Draw the share of runs that reach a score, a line for each setting of ENOUGH runs; further right is better."""
    groups = [group for group in compared.groups if group.many]
    if not groups:
        return None
    figure, (axes,) = _panels(1)
    thresholds = np.linspace(*_widened(np.concatenate([group.scores for group in groups])), 101)
    for group, colour in zip(groups, _colours(len(groups)), strict=True):
        share, low, high = statistics.profile(group.scores, thresholds)
        axes.plot(thresholds, share, color=colour, label=_text(group.name))
        axes.fill_between(thresholds, low, high, color=colour, alpha=0.1, linewidth=0)
    _explain(axes, _text(compared.kind), "share of runs above")
    return figure


def worth_of_tuning(compared: Comparison) -> Figure | None:
    """Draw the return to expect after so many evaluation episodes."""
    if compared.tuning is None:
        return None
    mean, low, high = compared.tuning
    figure, (axes,) = _panels(1)
    pulls = np.arange(1, len(mean) + 1)
    axes.plot(pulls, mean, color="#3366aa")
    if compared.sure:
        axes.fill_between(pulls, low, high, color="#3366aa", alpha=0.15, linewidth=0)
    values = [policy.mean() for policy in compared.policies]
    for value, label, style in ((max(values), "best policy", ":"), (float(np.mean(values)), "any policy", "--")):
        axes.axhline(value, color="#777777", linestyle=style, linewidth=1, label=f"{label} {value:.4g}")
    _roomy(axes)
    _explain(axes, "evaluation episodes before choosing", "return of the chosen policy")
    return figure


FIGURES: dict[str, Callable[[Comparison], Figure | None]] = {
    "beta": score_by_beta,
    "curves": learning_curves,
    "health": health_by_beta,
    "profile": performance_profile,
    "tuning": worth_of_tuning,
}
"""The pictures of a page, by the names of their files."""


def _panels(count: int, height: float = 3.6) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(7.0 if count == 1 else 14.0, height), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False).flatten().tolist()
    for axes in panels:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.ticklabel_format(useOffset=False)
    return figure, panels


def _colours(count: int) -> list[Any]:
    if count <= 1:
        return ["#3366aa"] * count
    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, count)))


def _text(words: str) -> str:
    """The text as pictures can show it: a dollar would begin a formula, and some characters have no picture."""
    shown = words if len(words) <= 2 * LONGEST else f"{words[: 2 * LONGEST]}…"
    return "".join(c if c.isprintable() else "?" for c in shown).replace("$", "\\$").lstrip("_")


def _by_beta(compared: Comparison) -> bool:
    """Whether settings lie along beta; else each has a place of its own."""
    betas = {group.beta for group in compared.groups}
    return None not in betas and len(betas) > 1


def _lines(compared: Comparison) -> list[tuple[str, list[Group]]]:
    """Named lines along beta, one for each choice of everything else; where settings have no betas, each is a line."""
    if not _by_beta(compared):
        return [("", [group]) for group in compared.groups]
    lines: dict[Setting, list[Group]] = {}
    for group in compared.groups:
        lines.setdefault(group.others, []).append(group)
    return [(name(others) if others else "", groups) for others, groups in lines.items()]


def _settings_along_x(axes: Any, compared: Comparison) -> dict[Setting, float]:
    """Prepare the horizontal axis, and return each setting's place on it: its beta, or its number."""
    groups = compared.groups
    if _by_beta(compared):
        places = {group.setting: group.beta or 0.0 for group in groups}
        ticks = sorted(set(places.values()))
        axes.set_xscale("log")
        axes.set_xlabel("beta")
        if len(ticks) <= MOST:
            axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        return places
    if len(groups) > MOST:
        axes.set_xlabel("settings, as in the table")
    else:
        axes.set_xticks(range(len(groups)), [_text(group.name) for group in groups], rotation=20, ha="right")
    axes.set_xlim(-0.5, len(groups) - 0.5)
    return {group.setting: float(number) for number, group in enumerate(groups)}


def _widened(values: Any) -> tuple[float, float]:
    """The least and the largest value, apart from one another even where they are the same."""
    low, high = float(np.min(values)), float(np.max(values))
    pad = 0.0 if high - low > 1e-6 * max(abs(low), abs(high)) else 0.05 * max(abs(low), abs(high)) or 1.0
    return low - pad, high + pad


def _roomy(axes: Any) -> None:
    """Give the vertical axis a range where all values are the same, to rounding."""
    low, high = axes.dataLim.y0, axes.dataLim.y1
    if np.isfinite([low, high]).all() and _widened([low, high]) != (low, high):
        axes.set_ylim(*_widened([low, high]))


def _references(axes: Any, compared: Comparison) -> None:
    """Lines at the returns of the data and of the baseline, where the picture is of returns."""
    for metric, (label, colour) in REFERENCES.items() if compared.metric == RETURN else ():
        values = [value for run in compared.found if (value := run.last(metric)) is not None]
        if not values:
            continue
        level, (low, high) = float(np.mean(values)), axes.get_ylim()
        if low - (high - low) <= level <= high + (high - low):
            axes.axhline(level, color=colour, linestyle="--", linewidth=1.1, label=f"{label} {level:.4g}")
        else:
            # Far away it would flatten everything else.
            axes.plot([], [], " ", label=f"{label} {level:.4g} ({'below' if level < low else 'above'})")


def _explain(axes: Any, x: str = "", y: str = "") -> None:
    """Name the axes, and what is drawn, where a legend has room for it."""
    axes.set(**({"xlabel": x} if x else {}), ylabel=y)
    handles, labels = axes.get_legend_handles_labels()
    if labels and len(labels) <= MOST:
        axes.legend(handles, labels, frameon=False, fontsize="small", ncols=1 + len(labels) // 8)
