"""The pictures of a comparison. Each function draws on a figure of its own, or says that there is nothing to draw."""

from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from awr_exp.report import statistics
from awr_exp.report.comparison import Comparison, Groups
from awr_exp.report.runs import RETURN, Result
from awr_exp.report.settings import LONGEST, Setting, name
from awr_exp.report.statistics import ENOUGH

HEALTH = {
    "train/ess": "effective sample size",
    "train/mean_weight": "mean weight",
    "train/clipped": "share clipped",
    "train/zero_weight": "share practically zero",
}
REFERENCES = {"dataset/return_mean": ("data", "#777777"), "baseline/return_mean": ("baseline", "#cc6633")}
MOST = 14
"""Settings that a legend or an axis can name."""
Budget = dict[int, tuple[float, statistics.Interval | None]]
"""From evaluation episodes to the return to expect after them, and its interval, if all settings have ENOUGH runs."""
PULLS = 60
"""Evaluation episodes up to which the worth of tuning is drawn."""


def score_by_beta(compared: Comparison) -> Figure:
    """Every run as a point; the interquartile mean over beta, or over settings, with its interval from ENOUGH runs."""
    figure, (axes,) = _panels(1)
    place = _places(compared)
    lines = _lines(compared)
    for (label, settings), colour in zip(lines, _colours(len(lines)), strict=True):
        values = [_scores(compared.groups[setting]) for setting in settings]
        x = [place(setting) for setting in settings]
        for at, points in zip(x, values, strict=True):
            axes.plot([at] * len(points), points, "o", color=colour, alpha=0.35, markersize=4, zorder=2)
        mean = [float(statistics.iqm(points)) for points in values]
        edges = [statistics.bootstrap(p) if len(p) >= ENOUGH else (m, m) for p, m in zip(values, mean, strict=True)]
        error = np.abs(np.array(edges).T - mean)
        error[:, [len(points) < ENOUGH for points in values]] = np.nan
        style = {"color": colour, "marker": "D", "markersize": 5, "capsize": 3, "zorder": 3}
        axes.errorbar(x, mean, error, label=_text(label) or None, **style)
    _roomy(axes)
    _x_axis(axes, compared)
    if compared.metric == RETURN:
        _references(axes, compared.found)
    axes.set_ylabel(_text(compared.kind))
    _legend(axes)
    return figure


def learning_curves(compared: Comparison) -> Figure:
    """The score over training, the mean of a setting's runs, with its bootstrap interval from ENOUGH on, or each."""
    figure, (axes,) = _panels(1)
    together = {setting: [r for r in compared.found if r.setting == setting] for setting in compared.names}
    last = max(step for r in compared.found for step in r.series.get(compared.metric, {0: 0.0}))
    for (setting, found), colour in zip(together.items(), _colours(len(together)), strict=True):
        curves = [r.series[compared.metric] for r in found if compared.metric in r.series]
        steps = sorted(set().union(*curves))
        # Seeds may be at different points of a running sweep: each point takes those that are there.
        points = [np.array([curve[step] for curve in curves if step in curve]) for step in steps]
        if not points:
            continue
        label = _text(compared.names[setting])
        axes.plot(steps, [p.mean() for p in points], color=colour, marker="o", markersize=3, label=label)
        if len(curves) < ENOUGH:
            for curve in curves if len(curves) > 1 else ():
                axes.plot(sorted(curve), [curve[s] for s in sorted(curve)], color=colour, alpha=0.3, linewidth=0.8)
            continue
        many = [step for step, p in zip(steps, points, strict=True) if len(p) >= ENOUGH]
        edges = [statistics.bootstrap(p, lambda v: v.mean(-1)) for p in points if len(p) >= ENOUGH]
        axes.fill_between(many, *np.array(edges).T, color=colour, alpha=0.12, linewidth=0)
    _roomy(axes)
    axes.set_xlim(0, 1.03 * max(last, 1))
    if compared.metric == RETURN:
        _references(axes, compared.found)
    axes.set_xlabel(compared.unit)
    axes.set_ylabel(_text(compared.kind))
    _legend(axes)
    return figure


def health_by_beta(compared: Comparison) -> Figure | None:
    """The weights' metrics at the end of training, a point a run."""
    everyone = [result for found in compared.groups.values() for result in found]
    measured = {metric: title for metric, title in HEALTH.items() if any(r.last(metric) is not None for r in everyone)}
    if not measured:
        return None
    figure, panels = _panels(len(measured), height=2.6)
    place = _places(compared)
    for (metric, title), axes in zip(measured.items(), panels, strict=True):
        for setting, found in compared.groups.items():
            values = [value for r in found if (value := r.last(metric)) is not None]
            axes.plot([place(setting)] * len(values), values, "o", color="#338866", alpha=0.5, markersize=4)
        _roomy(axes)
        _x_axis(axes, compared)
        axes.set_title(title, fontsize="medium")
        if metric != "train/mean_weight":
            axes.set_ylim(-0.03, 1.05)
    return figure


def performance_profile(compared: Comparison) -> Figure | None:
    """Share of runs that reach at least a score, a line a setting of ENOUGH runs: what is further right is better."""
    groups = {s: _scores(found) for s, found in compared.groups.items() if len(found) >= ENOUGH}
    if not groups:
        return None
    figure, (axes,) = _panels(1)
    thresholds = np.linspace(*_widened(np.concatenate(list(groups.values()))), 101)
    for (setting, scores), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        share, low, high = statistics.profile(scores, thresholds)
        axes.plot(thresholds, share, color=colour, label=_text(compared.names[setting]))
        axes.fill_between(thresholds, low, high, color=colour, alpha=0.1, linewidth=0)
    axes.set_xlabel(_text(compared.kind))
    axes.set_ylabel("share of runs above")
    _legend(axes)
    return figure


def worth_of_tuning(compared: Comparison) -> tuple[Figure, Budget] | None:
    """The return to expect after so many evaluation episodes, and the same as numbers."""
    runs = [result for found in compared.groups.values() for result in found]
    policies = [returns for r in runs if (returns := r.returns) is not None]
    if len(policies) < 2:
        return None
    mean, low, high = statistics.tuning_budget(policies, PULLS)
    figure, (axes,) = _panels(1)
    pulls = np.arange(1, PULLS + 1)
    axes.plot(pulls, mean, color="#3366aa")
    if many := all(len(found) >= ENOUGH for found in compared.groups.values()):
        axes.fill_between(pulls, low, high, color="#3366aa", alpha=0.15, linewidth=0)
    values = [policy.mean() for policy in policies]
    for value, label, style in ((max(values), "best policy", ":"), (float(np.mean(values)), "any policy", "--")):
        axes.axhline(value, color="#777777", linestyle=style, linewidth=1, label=f"{label} {value:.4g}")
    _roomy(axes)
    axes.set_xlabel("evaluation episodes before choosing")
    axes.set_ylabel("return of the chosen policy")
    _legend(axes)
    edges = zip(low.tolist(), high.tolist(), strict=True)
    rows = [(float(value), edge if many else None) for value, edge in zip(mean, edges, strict=True)]
    return figure, {n: rows[n - 1] for n in (1, 5, 10, 20, 50)}


def _scores(found: Sequence[Result]) -> statistics.Array:
    return np.array([r.score for r in found], dtype=np.float64)


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
    betas = [found[0].beta for found in compared.groups.values()]
    return None not in betas and len(set(betas)) > 1


def _lines(compared: Comparison) -> list[tuple[str, list[Setting]]]:
    """Settings along beta, a named line for each choice of everything else; or each for itself."""
    if not _by_beta(compared):
        return [("", [setting]) for setting in compared.groups]
    lines: dict[Setting, list[Setting]] = {}
    for setting, found in compared.groups.items():
        lines.setdefault(found[0].others, []).append(setting)
    return [(name(others) if others else "", settings) for others, settings in lines.items()]


def _places(compared: Comparison) -> Callable[[Setting], float]:
    """The place of each setting on the axis: its beta, or its number where there is none."""
    groups = compared.groups
    if _by_beta(compared):
        return lambda setting: groups[setting][0].beta or 0.0
    return list(groups).index


def _x_axis(axes: Any, compared: Comparison) -> None:
    groups: Groups = compared.groups
    if not _by_beta(compared):
        if len(groups) > MOST:
            axes.set_xlabel("settings, as in the table")
        else:
            names = [_text(compared.names[setting]) for setting in groups]
            axes.set_xticks(range(len(groups)), names, rotation=20, ha="right")
        axes.set_xlim(-0.5, len(groups) - 0.5)
        return
    axes.set_xscale("log")
    ticks = sorted({found[0].beta or 0.0 for found in groups.values()})
    if len(ticks) <= MOST:
        axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("beta")


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


def _references(axes: Any, found: Sequence[Result]) -> None:
    for metric, (label, colour) in REFERENCES.items():
        values = [value for r in found if (value := r.last(metric)) is not None]
        if not values:
            continue
        level, (low, high) = float(np.mean(values)), axes.get_ylim()
        if low - (high - low) <= level <= high + (high - low):
            axes.axhline(level, color=colour, linestyle="--", linewidth=1.1, label=f"{label} {level:.4g}")
        else:
            # Far away it would flatten everything else.
            axes.plot([], [], " ", label=f"{label} {level:.4g} ({'below' if level < low else 'above'})")


def _legend(axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels and len(labels) <= MOST:
        axes.legend(handles, labels, frameon=False, fontsize="small", ncols=1 + len(labels) // 8)
