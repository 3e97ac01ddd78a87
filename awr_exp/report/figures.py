"""The pictures of a comparison, each as panels of numbers: a page and an image draw the same ones."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from awr_exp.report import statistics
from awr_exp.report.comparison import Comparison
from awr_exp.report.drawing import COLOURS, Axis, Level, Panel, Trace, framed, padded, widened
from awr_exp.report.group import Group
from awr_exp.report.runs import ESTIMATE, HELD_OUT, RETURN, Result
from awr_exp.report.settings import Setting, name
from awr_exp.report.statistics import ENOUGH, bootstrap

HEALTH = {
    "train/ess": "effective sample size",
    "train/mean_weight": "mean weight",
    "train/clipped": "share clipped",
    "train/zero_weight": "share practically zero",
}
REFERENCES = {"dataset/return_mean": "data", "baseline/return_mean": "baseline"}
MOST = 14
"""Settings that an axis can name."""
POINTS = 150
"""Places of a curve: more cannot be seen."""
OTHERS = "other settings"
Colours = dict[Setting, int | None]


def score_by_beta(compared: Comparison) -> list[Panel]:
    """Each run as a point, and interquartile means over beta, or over settings, with intervals of ENOUGH runs."""
    if not compared.groups:
        return []
    lines, places = _lines(compared), _places(compared)
    # Along beta a line has one colour; where there is one line only, settings have theirs.
    shared = {group.setting: number for number, (_, groups) in enumerate(lines) for group in groups}
    many = 1 < len(lines) <= COLOURS and _by_beta(compared)
    colours: Colours = dict(shared) if many else compared_colours(compared)
    traces = [
        Trace(
            "join",
            [places[g.setting] for g in groups],
            [g.iqm for g in groups],
            shared[groups[0].setting] if many else None,
        )
        for _, groups in lines
        if len(groups) > 1
    ]
    labels = {groups[0].setting: label for label, groups in lines} if many else compared.names
    for colour, groups in _by_colour(compared.groups, colours):
        label = next((labels[g.setting] for g in groups if g.setting in labels), "") if colour is not None else OTHERS
        traces += [_runs(groups, places, colour), _means(groups, places, colour, label)]
    return [framed(_along(compared), compared.kind, traces, _references(compared, compared.metric))]


def learning_curves(compared: Comparison) -> list[Panel]:
    """The score over training, and what is made of held-out episodes, in a panel each."""
    # An estimate is made once, at the end.
    shown = ({} if compared.metric == ESTIMATE else {compared.metric: compared.kind}) | HELD_OUT
    return [_over_training(compared, metric, kind) for metric, kind in shown.items() if metric in compared.measured]


def _over_training(compared: Comparison, metric: str, kind: str) -> Panel:
    """Each setting's mean of a metric, with its interval from ENOUGH runs on, else with its runs."""
    colours, traces = compared_colours(compared), []
    for setting, label in compared.names.items():
        curves = [
            (run, run.series[metric]) for run in compared.found if run.setting == setting and metric in run.series
        ]
        if curves:
            traces += _curves(label, curves, colours.get(setting))
    last = max((step for trace in traces for step in trace.x if step is not None), default=1)
    # What stays in the background is drawn first.
    traces.sort(key=lambda trace: (trace.colour is not None, trace.kind == "curve"))
    return framed(Axis(compared.unit, (0, 1.03 * last)), kind, traces, _references(compared, metric))


def _curves(label: str, curves: Sequence[tuple[Result, dict[int, float]]], colour: int | None) -> list[Trace]:
    """The mean of some runs' curves, its band where there are enough of them, and the runs where there are few."""
    steps = _thinned(sorted(set().union(*(curve for _, curve in curves))))
    # Seeds may be at different points of a running sweep: each point takes those that are there.
    points = [np.array([curve[step] for _, curve in curves if step in curve]) for step in steps]
    edges = [
        bootstrap(p, lambda v: v.mean(-1)) if len(p) >= ENOUGH and colour is not None else (None, None) for p in points
    ]
    low, high = zip(*edges, strict=True)
    banded = any(edge is not None for edge in low)
    known = label if colour is not None else OTHERS
    mean = Trace("curve", steps, [float(p.mean()) for p in points], colour, known, about=[label])
    found = [replace(mean, low=low, high=high) if banded else mean]
    if 1 < len(curves) < ENOUGH and colour is not None:
        for run, curve in curves:
            kept = _thinned(sorted(curve))
            found.append(Trace("thin", kept, [curve[step] for step in kept], colour, label, about=[_said(run)]))
    return found


def health_by_beta(compared: Comparison) -> list[Panel]:
    """The metrics of the weights at the end of training, a point for each run."""
    places, colours, panels = _places(compared), compared_colours(compared), []
    for metric, title in HEALTH.items():
        traces = []
        for colour, groups in _by_colour(compared.groups, colours):
            runs = [(group, run) for group in groups for run in group.runs if metric in run.series]
            if runs:
                x = [places[group.setting] for group, _ in runs]
                about = [f"{group.name}, {_said(run)}" for group, run in runs]
                traces.append(Trace("runs", x, [run.last(metric) for _, run in runs], colour, about=about))
        if traces:
            within = None if metric == "train/mean_weight" else (-0.03, 1.05)
            panels.append(replace(framed(_along(compared), "", traces, within=within), title=title))
    return panels


def performance_profile(compared: Comparison) -> list[Panel]:
    """The share of runs above each score, a step at each run, for settings of ENOUGH runs; further right is better."""
    groups = [group for group in compared.groups if group.many]
    if not groups:
        return []
    colours = compared_colours(compared)
    low, high = padded(*widened(np.concatenate([group.scores for group in groups]).tolist()))
    traces = []
    for group in groups:
        thresholds = np.unique([low, *group.scores, high])
        share, below, above = (edge.tolist() for edge in statistics.profile(group.scores, thresholds))
        colour = colours[group.setting]
        band = {} if colour is None else {"low": below, "high": above}
        label = group.name if colour is not None else OTHERS
        traces.append(Trace("steps", thresholds.tolist(), share, colour, label, about=[group.name], **band))
    traces.sort(key=lambda trace: trace.colour is not None)
    return [framed(Axis(compared.kind, (low, high)), "share of runs above", traces, within=(-0.03, 1.05))]


def worth_of_tuning(compared: Comparison) -> list[Panel]:
    """The return to expect after so many evaluation episodes."""
    if compared.tuning is None:
        return []
    mean, low, high = (edge.tolist() for edge in compared.tuning)
    band = {"low": low, "high": high} if compared.sure else {}
    trace = Trace("curve", list(range(1, len(mean) + 1)), mean, 0, "chosen policy", **band)
    values = [float(policy.mean()) for policy in compared.policies]
    best, every = max(values), float(np.mean(values))
    levels = [Level(f"best policy {best:.4g}", best, "dot"), Level(f"any policy {every:.4g}", every)]
    axis = Axis("evaluation episodes before choosing", (0, len(mean) + 1))
    return [framed(axis, "return of the chosen policy", [trace], levels)]


FIGURES: dict[str, Callable[[Comparison], list[Panel]]] = {
    "beta": score_by_beta,
    "curves": learning_curves,
    "health": health_by_beta,
    "profile": performance_profile,
    "tuning": worth_of_tuning,
}
"""The pictures of a page, by the names of their files; one without a panel has nothing to show."""


def compared_colours(compared: Comparison) -> Colours:
    """The colour of each setting: where there are more settings than colours, the best have one, and the rest none."""
    coloured = {group.setting for group in compared.ranked[:COLOURS]}
    numbers = iter(range(COLOURS))
    if not coloured or len(compared.names) <= COLOURS:
        coloured = set(list(compared.names)[:COLOURS])
    return {setting: next(numbers) if setting in coloured else None for setting in compared.names}


def _by_colour(groups: Sequence[Group], colours: Colours) -> list[tuple[int | None, list[Group]]]:
    """The groups of each colour, the background first."""
    found: dict[int | None, list[Group]] = defaultdict(list)
    for group in groups:
        found[colours[group.setting]].append(group)
    return sorted(found.items(), key=lambda item: -1 if item[0] is None else item[0])


def _runs(groups: Sequence[Group], places: dict[Setting, float], colour: int | None) -> Trace:
    runs = [(group, run) for group in groups for run in group.runs]
    about = [f"{group.name}, {_said(run)}" for group, run in runs]
    return Trace("runs", [places[group.setting] for group, _ in runs], [r.score for _, r in runs], colour, about=about)


def _means(groups: Sequence[Group], places: dict[Setting, float], colour: int | None, label: str) -> Trace:
    low, high = zip(*(group.interval or (None, None) for group in groups), strict=True)
    about = [f"{group.title}, mean of {len(group.runs)}" for group in groups]
    x, y = [places[group.setting] for group in groups], [group.iqm for group in groups]
    return Trace("means", x, y, colour, label, low, high, about)


def _said(run: Result) -> str:
    return f"run {run.run.folder.name}, seed {run.seed}"


def _thinned(steps: list[int]) -> list[int]:
    """Some of the steps, the first and the last among them."""
    if len(steps) <= POINTS:
        return steps
    return [steps[round(place)] for place in np.linspace(0, len(steps) - 1, POINTS)]


def _by_beta(compared: Comparison) -> bool:
    """Whether settings lie along beta; else each has a place of its own."""
    betas = {group.beta for group in compared.groups}
    return None not in betas and len(betas) > 1


def _lines(compared: Comparison) -> list[tuple[str, list[Group]]]:
    """Named lines along beta, one for each choice of everything else; where settings have no betas, each is a line."""
    if not _by_beta(compared):
        return [(group.name, [group]) for group in compared.groups]
    lines: dict[Setting, list[Group]] = defaultdict(list)
    for group in compared.groups:
        lines[group.others].append(group)
    return [(name(others) if others else "", groups) for others, groups in lines.items()]


def _order(compared: Comparison) -> list[Group]:
    """The settings from left to right: in their order, or the best first where there is no room for their names."""
    return compared.groups if len(compared.groups) <= MOST else compared.ranked


def _places(compared: Comparison) -> dict[Setting, float]:
    """The place of each setting on the horizontal axis: its beta, or its number."""
    if _by_beta(compared):
        return {group.setting: group.beta or 0.0 for group in compared.groups}
    return {group.setting: float(number) for number, group in enumerate(_order(compared))}


def _along(compared: Comparison) -> Axis:
    """The horizontal axis of settings."""
    groups = _order(compared)
    if _by_beta(compared):
        betas = sorted({group.beta or 0.0 for group in groups})
        room = (betas[-1] / betas[0]) ** 0.06
        ticks = [(beta, f"{beta:.4g}") for beta in betas] if len(betas) <= MOST else ()
        return Axis("beta", (betas[0] / room, betas[-1] * room), log=True, ticks=ticks)
    limits = (-0.5, len(groups) - 0.5)
    if len(groups) > MOST:
        return Axis("settings, the best first", limits, ticks=[(0.0, "1"), (len(groups) - 1.0, str(len(groups)))])
    return Axis("", limits, ticks=[(float(number), group.name) for number, group in enumerate(groups)])


def _references(compared: Comparison, metric: str) -> list[Level]:
    """The returns of the data and of the baseline, where the picture is of returns."""
    levels = []
    for reference, label in REFERENCES.items() if metric == RETURN else ():
        values = [value for run in compared.found if (value := run.last(reference)) is not None]
        if values:
            level = float(np.mean(values))
            levels.append(Level(f"{label} {level:.4g}", level, "dash" if label == "data" else "dot"))
    return levels
