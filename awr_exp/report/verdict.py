"""The answer in plain words: which setting to use, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from awr_exp.math.temperature import Judgement
from awr_exp.report import settings, statistics
from awr_exp.report.comparison import Comparison
from awr_exp.report.settings import BETA, Setting
from awr_exp.report.statistics import ENOUGH, Interval


@dataclass(frozen=True)
class Row:
    """A setting's aggregate over its runs.

    interval: of the interquartile mean, from ENOUGH runs on; low, high: the least and the best run; ahead: the share of
    pairs of runs in which the best setting's is better, and its interval, from ENOUGH runs of both on; judgement: of
    its weights, where it has some.
    """

    setting: Setting
    runs: int
    iqm: float
    low: float
    high: float
    interval: Interval | None
    judgement: Judgement | None
    weighted: bool
    ahead: float | None = None
    ahead_interval: Interval | None = None


def aggregate(compared: Comparison) -> list[Row]:
    """One row a setting that compares, the best interquartile mean first."""
    scores = {s: np.array([run.score for run in runs], dtype=np.float64) for s, runs in compared.groups.items()}
    ranked = sorted(scores, key=lambda one: -float(statistics.iqm(scores[one])))
    return [_row(compared, setting, scores[ranked[0]], scores[setting], setting != ranked[0]) for setting in ranked]


def _row(compared: Comparison, setting: Setting, best: statistics.Array, mine: statistics.Array, other: bool) -> Row:
    many = len(mine) >= ENOUGH
    judgement, weighted = compared.judgement(setting)
    return Row(
        setting,
        len(mine),
        float(statistics.iqm(mine)),
        float(mine.min()),
        float(mine.max()),
        statistics.bootstrap(mine) if many else None,
        judgement,
        weighted,
        statistics.probability_of_improvement(best, mine) if other else None,
        statistics.improvement_interval(best, mine) if other and many and len(best) >= ENOUGH else None,
    )


def answer(compared: Comparison, rows: Sequence[Row]) -> str:
    """Which setting to use and how sure that is, in a few sentences."""
    if not rows:
        return "Nothing was evaluated here yet."
    best, worth = rows[0], _worth(rows[0], compared.kind)
    name = compared.names[best.setting]
    if settings.is_number(name):
        name += f", which is {settings.name(best.setting)}"
    if len(rows) > 1 and min(row.low for row in rows) == max(row.high for row in rows):
        said = f"All runs of all {len(rows)} settings have the same {compared.kind}, {best.iqm:.4g}: none is better."
        return said + _left_behind(compared)
    if len(rows) > 1:
        said = f"Use {name} ({worth}).{_certainty(compared, rows)}"
    elif len(compared.names) > 1:
        said = f"Use {name} ({worth}): no other setting was judged at {compared.budget} {compared.unit}."
    else:
        said = f"There is one setting only, {name}: {worth}. There is nothing to compare it with."
    return said + _left_behind(compared) + _about_beta(rows)


def _worth(best: Row, kind: str) -> str:
    if best.runs == 1:
        return f"{kind} {best.iqm:.4g} of 1 run"
    text = f"interquartile mean of the {kind} {best.iqm:.4g}"
    if best.interval is None:
        return f"{text}, {best.runs} runs from {best.low:.4g} to {best.high:.4g}"
    return f"{text}, 95% interval {best.interval[0]:.4g} to {best.interval[1]:.4g} over {best.runs} runs"


def _certainty(compared: Comparison, rows: Sequence[Row]) -> str:
    best = rows[0]
    if any(row.runs < 2 for row in rows):
        return " Not sure at all: with a single run of a setting chance cannot be told from merit; add seeds."
    missing = sum(not run.finished and run.setting in compared.groups for run in compared.found)
    if missing:
        have = "1 run has" if missing == 1 else f"{missing} runs have"
        return f" Not sure: of these settings {have} failed, or not reached the end."
    rivals = [row for row in rows[1:] if not _sure(best, row)]
    if not rivals:
        least = min(row.ahead or 0.0 for row in rows[1:])
        return (
            f" Fairly sure: its runs are better than those of each other setting in {least:.0%} of all pairs or more."
        )
    names = ", ".join(compared.names[row.setting] for row in rivals[:3]) + (" and others" if len(rivals) > 3 else "")
    close = next((row for row in rivals if row.high >= best.low), None)
    if close is None:
        fewest = min(best.runs, *(row.runs for row in rivals))
        return (
            f" Not sure: all its runs are better than those of {names}, but {fewest} of a setting are few; add seeds."
        )
    those = "those" if len(rivals) == 1 else f"those of {compared.names[close.setting]}"
    pairs = f"its runs are better than {those} in {close.ahead:.0%} of all pairs"
    return f" Not sure: these runs cannot tell it from {names} ({pairs}); add seeds before you rely on it."


def _sure(best: Row, other: Row) -> bool:
    # So few runs that their order alone could be chance once in twenty times show nothing, whatever it is.
    if math.comb(best.runs + other.runs, best.runs) < 20:
        return False
    # Of some more, order is all there is.
    return best.low > other.high if other.ahead_interval is None else other.ahead_interval[0] > 0.5


def _left_behind(compared: Comparison) -> str:
    """A sentence about runs that do not compare."""
    behind = [run for run in compared.found if run.score is None and run.last(compared.metric) is not None]
    judged = sum(run.score is not None for run in compared.found)
    said = ""
    if twins := judged - sum(map(len, compared.groups.values())):
        repeat = "1 run repeats" if twins == 1 else f"{twins} runs repeat"
        said += f" {repeat} another of the same setting and seed, and such count once."
    if behind:
        have, are = ("1 run has", "is") if len(behind) == 1 else (f"{len(behind)} runs have", "are")
        said += f" {have} been judged elsewhere than at {compared.budget} {compared.unit}, and {are} not compared."
    return said


def _about_beta(rows: Sequence[Row]) -> str:
    """A sentence about where better betas may lie, by the weights of the best, and by those that were tried."""
    best, found = rows[0], rows[0].judgement
    betas = {row.setting: beta for row in rows if isinstance(beta := dict(row.setting).get(BETA), int | float)}
    said = ""
    if best.setting in betas and len(set(betas.values())) > 2:
        beta = betas[best.setting]
        for end, beyond in ((min, "smaller"), (max, "larger")):
            if beta == end(betas.values()) and not (found and found.useless in (beyond, "any")):
                said += f" It is the {beyond.removesuffix('r')}st beta tried: try {beyond} ones."
    if found:
        # What it would say to try may have been tried.
        tried = found.beta is not None and any(found.beta / 2 <= beta <= found.beta * 2 for beta in betas.values())
        said += f" {found.fact[0].upper()}{found.fact[1:]}{'' if tried else f'; {found.advice}'}."
    return said
