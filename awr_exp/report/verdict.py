"""The answer in plain words: which setting to use, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from awr_exp.report import runs, statistics
from awr_exp.report.runs import Result, Setting
from awr_exp.report.statistics import Interval

Groups = Mapping[Setting, Sequence[Result]]


@dataclass(frozen=True)
class Row:
    """A setting's aggregate over seeds and tasks; `improvement` is the best setting's chance to beat it."""

    setting: Setting
    runs: int
    iqm: float
    interval: Interval
    mean: float
    improvement: float | None = None
    improvement_interval: Interval | None = None


def aggregate(groups: Groups, tasks: Sequence[str]) -> list[Row]:
    """One row a setting, the best interquartile mean first."""
    by_task = {setting: runs.scores(found, tasks) for setting, found in groups.items()}
    scores = {setting: list(found.values()) for setting, found in by_task.items()}
    everything = {setting: np.concatenate(values) for setting, values in scores.items()}
    # A setting that was tried on more of the tasks comes first: of the others nobody knows.
    ranked = sorted(everything, key=lambda one: (-len(scores[one]), -float(statistics.iqm(everything[one]))))
    rows = []
    for setting in ranked:
        values = everything[setting]
        comparison: tuple[float, Interval] | tuple[None, None] = (None, None)
        if setting != ranked[0] and by_task[setting].keys() == by_task[ranked[0]].keys():
            comparison = statistics.probability_of_improvement(scores[ranked[0]], scores[setting])
        rows.append(
            Row(
                setting,
                len(values),
                float(statistics.iqm(values)),
                statistics.bootstrap(scores[setting]),
                float(values.mean()),
                *comparison,
            )
        )
    return rows


def sentence(rows: Sequence[Row], kind: str, early: int = 0) -> str:
    """Which setting to use and how sure that is, in one or two sentences; early: runs that did not reach their end."""
    best = rows[0]
    low, high = best.interval
    worth = f"interquartile mean of the {kind} {best.iqm:.4g}"
    if best.runs > 1:
        worth += f", 95% interval {low:.4g} to {high:.4g} over {best.runs} runs"
    if len(rows) == 1:
        return f"There is one setting only, {runs.name(best.setting)}: {worth}. Nothing to compare it with."
    answer = f"Use {runs.name(best.setting)} ({worth})."
    rivals = [row for row in rows[1:] if not _sure(best, row)]
    if best.runs < 2 or any(row.runs < 2 for row in rows):
        return f"{answer} Not sure at all: with a single run of a setting chance cannot be told from merit; add seeds."
    if early:
        which = "1 run has" if early == 1 else f"{early} runs have"
        answer += f" Not sure: {which} not reached the end and count with the last evaluation."
    elif rivals:
        row = rivals[0]
        chance = f" (probability {row.improvement:.2f} to beat the first of these)" if row.improvement else ""
        names = ", ".join(runs.name(row.setting) for row in rivals[:3]) + (" and others" if len(rivals) > 3 else "")
        answer += f" Not sure: these runs cannot tell it from {names}{chance}; add seeds before you rely on it."
    else:
        worst = min(row.improvement or 0.0 for row in rows[1:])
        answer += f" Fairly sure: it beats each of the others with probability {worst:.2f} or more."
    return answer + _edge(rows)


def _sure(best: Row, other: Row) -> bool:
    # So few runs that their order alone could be chance once in twenty times show nothing, whatever the interval.
    enough = math.comb(best.runs + other.runs, best.runs) >= 20
    return enough and other.improvement_interval is not None and other.improvement_interval[0] > 0.5


def _edge(rows: Sequence[Row]) -> str:
    """Whether the best beta is the first or last of those tried: the optimum may lie beyond."""
    betas = sorted({float(value) for row in rows for key, value in row.setting if key == runs.BETA})
    best = next((float(value) for key, value in rows[0].setting if key == runs.BETA), None)
    if best is None or len(betas) < 3 or best not in (betas[0], betas[-1]):
        return ""
    if best == betas[0]:
        return " It is the smallest beta tried: try smaller ones."
    return " It is the largest beta tried: try larger ones."
