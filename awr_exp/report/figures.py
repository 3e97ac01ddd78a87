"""The pictures of a report. Each function draws on a figure of its own, or says that there is nothing to draw."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from awr_exp.report import runs, statistics
from awr_exp.report.runs import RETURN, Result, Setting

Groups = Mapping[Setting, Sequence[Result]]

HEALTH = {
    "train/ess": "effective sample size",
    "train/mean_weight": "mean weight",
    "train/clipped": "share clipped",
    "train/zero_weight": "share practically zero",
}
REFERENCES = {"dataset/return_mean": ("data", "#777777"), "baseline/return_mean": ("baseline", "#cc6633")}
MOST = 14
"""Settings that a legend or an axis can name."""
PULLS = 60
"""Evaluation episodes up to which the worth of tuning is drawn."""


def score_by_beta(groups: Groups, tasks: Sequence[str], kind: str) -> Figure:
    """Every seed as a point, the interquartile mean and its interval as a line over beta, or over settings."""
    figure, panels = _panels(tasks)
    for task, axes in zip(tasks, panels, strict=True):
        mine = {s: [r for r in found if r.task == task] for s, found in groups.items()}
        mine = {s: found for s, found in mine.items() if found}
        lines = _lines(mine)
        for (name, settings), colour in zip(lines.items(), _colours(len(lines)), strict=False):
            x = [_x(setting, list(mine)) for setting in settings]
            values = [np.array([r.score for r in mine[setting]], dtype=float) for setting in settings]
            for place, points in zip(x, values, strict=True):
                axes.plot([place] * len(points), points, "o", color=colour, alpha=0.35, markersize=4, zorder=2)
            mean = [float(statistics.iqm(points)) for points in values]
            edges = [statistics.bootstrap([points]) for points in values]
            error = np.abs(np.array(edges).T - mean)
            style = {"color": colour, "marker": "D", "markersize": 5, "capsize": 3, "zorder": 3}
            axes.errorbar(x, mean, error, label=name or None, **style)
        _x_axis(axes, list(mine))
        if kind == "return":
            _references(axes, [r for found in mine.values() for r in found])
        axes.set_ylabel(kind)
        axes.set_title(task, fontsize="medium")
        _legend(axes)
    return figure


def learning_curves(groups: Groups, tasks: Sequence[str]) -> Figure:
    """Mean evaluation return over training, with its bootstrap interval over seeds, a line a setting."""
    figure, panels = _panels(tasks)
    for task, axes in zip(tasks, panels, strict=True):
        for (setting, found), colour in zip(groups.items(), _colours(len(groups)), strict=True):
            curves = [r.series[RETURN] for r in found if r.task == task and RETURN in r.series]
            steps = sorted(set().union(*curves)) if curves else []
            # Seeds may be at different points of a running sweep: each point takes those that are there.
            points = [np.array([curve[step] for curve in curves if step in curve]) for step in steps]
            if not points:
                continue
            edges = np.array([statistics.bootstrap([p], lambda v: v.mean(-1)) for p in points])
            mean = [p.mean() for p in points]
            axes.plot(steps, mean, color=colour, marker="o", markersize=3, label=runs.name(setting))
            axes.fill_between(steps, edges[:, 0], edges[:, 1], color=colour, alpha=0.12, linewidth=0)
        _references(axes, [r for found in groups.values() for r in found if r.task == task])
        axes.set_xlabel(" or ".join(sorted({r.unit for found in groups.values() for r in found if r.task == task})))
        axes.set_ylabel("evaluation return")
        axes.set_title(task, fontsize="medium")
        _legend(axes)
    return figure


def health_by_beta(groups: Groups) -> Figure | None:
    """The weights' metrics at the end of training, a point a run."""
    everyone = [result for found in groups.values() for result in found]
    measured = {name: title for name, title in HEALTH.items() if any(r.last(name) is not None for r in everyone)}
    if not measured:
        return None
    figure, panels = _panels(list(measured), height=2.6)
    for (metric, title), axes in zip(measured.items(), panels, strict=True):
        for setting, found in groups.items():
            values = [value for r in found if (value := r.last(metric)) is not None]
            axes.plot([_x(setting, list(groups))] * len(values), values, "o", color="#338866", alpha=0.5, markersize=4)
        _x_axis(axes, list(groups))
        axes.set_title(title, fontsize="medium")
        if metric != "train/mean_weight":
            axes.set_ylim(-0.03, 1.05)
    return figure


def performance_profile(groups: Groups, tasks: Sequence[str], kind: str) -> Figure:
    """Share of runs that reach at least a score, a line a setting: what is further right is better."""
    figure, (axes,) = _panels([""])
    everything = np.array([r.score for found in groups.values() for r in found], dtype=float)
    thresholds = np.linspace(everything.min() - 1e-9, everything.max(), 101)
    for (setting, found), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        share, low, high = statistics.profile(list(runs.scores(found, tasks).values()), thresholds)
        axes.plot(thresholds, share, color=colour, label=runs.name(setting))
        axes.fill_between(thresholds, low, high, color=colour, alpha=0.1, linewidth=0)
    axes.set_xlabel(kind)
    axes.set_ylabel("share of runs above")
    _legend(axes)
    return figure


def worth_of_tuning(found: Sequence[Result], task: str) -> tuple[Figure, dict[int, tuple[float, float, float]]] | None:
    """The return to expect after so many evaluation episodes, and the same as numbers."""
    policies = [returns for r in found if r.task == task and (returns := r.returns) is not None]
    if len(policies) < 2:
        return None
    mean, low, high = statistics.tuning_budget(policies, PULLS)
    figure, (axes,) = _panels([""])
    pulls = np.arange(1, PULLS + 1)
    axes.plot(pulls, mean, color="#3366aa")
    axes.fill_between(pulls, low, high, color="#3366aa", alpha=0.15, linewidth=0)
    values = [policy.mean() for policy in policies]
    for value, label, style in ((max(values), "best policy", ":"), (float(np.mean(values)), "any policy", "--")):
        axes.axhline(value, color="#777777", linestyle=style, linewidth=1, label=f"{label} {value:.4g}")
    axes.set_xlabel("evaluation episodes before choosing")
    axes.set_ylabel("return of the chosen policy")
    axes.set_title(task, fontsize="medium")
    _legend(axes)
    return figure, {n: (float(mean[n - 1]), float(low[n - 1]), float(high[n - 1])) for n in (1, 5, 10, 20, 50)}


def _panels(titles: Sequence[str], height: float = 3.6) -> tuple[Figure, list[Any]]:
    columns = min(len(titles), 4 if height < 3 else 2)
    rows = -(-len(titles) // columns)
    width = {1: 7.0, 2: 12.0}.get(columns, 14.0)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in grid[len(titles) :]:
        axes.remove()
    for axes in grid[: len(titles)]:
        axes.grid(alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    return figure, grid[: len(titles)]


def _colours(count: int) -> list[Any]:
    if count <= 1:
        return ["#3366aa"]
    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, count)))


def _lines(groups: Groups) -> dict[str, list[Setting]]:
    """Settings along beta, a line for each choice of everything else."""
    lines: dict[str, list[Setting]] = {}
    for setting, found in groups.items():
        lines.setdefault(runs.name(found[0].others) if found[0].others else "", []).append(setting)
    return lines


def _betas(settings: Sequence[Setting]) -> list[float | None]:
    return [next((float(value) for key, value in setting if key == runs.BETA), None) for setting in settings]


def _x(setting: Setting, settings: Sequence[Setting]) -> float:
    """Where a setting stands on the axis: at its beta, or in its place where there is none."""
    if None in _betas(settings):
        return float(list(settings).index(setting))
    return _betas([setting])[0] or 0.0


def _x_axis(axes: Any, settings: Sequence[Setting]) -> None:
    betas = _betas(settings)
    if None in betas and len(settings) > MOST:
        axes.set_xlabel("settings, as in the table")
        return
    if None in betas:
        axes.set_xticks(range(len(settings)), [runs.name(setting) for setting in settings], rotation=20, ha="right")
        axes.margins(x=0.1)
        return
    axes.set_xscale("log")
    ticks = sorted({beta for beta in betas if beta is not None})
    if len(ticks) <= MOST:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("beta")


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
