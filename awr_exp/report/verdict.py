"""The answer in plain words: which setting to use, and how sure that is."""

import math
from collections.abc import Sequence

from awr_exp.math import diagnosis
from awr_exp.report import settings
from awr_exp.report.comparison import Comparison
from awr_exp.report.group import Group


def answer(compared: Comparison) -> str:
    """Which setting to use and how sure that is, in a few sentences."""
    ranked = compared.ranked
    if not ranked:
        held_out = " beyond what policies make of held-out episodes; evaluate=fqe estimates their returns"
        return f"Nothing was evaluated here yet{held_out if compared.judged else ''}."
    best, worth = ranked[0], _worth(ranked[0], compared.kind)
    name = best.name
    if settings.is_numbered(name):
        name += f", which is {settings.name(best.setting)}"
    if len(ranked) > 1 and len({score for group in ranked for score in group.scores}) == 1:
        said = f"All runs of all {len(ranked)} settings have the same {compared.kind}, {best.iqm:.4g}: none is better."
        return said + _left_behind(compared)
    if len(ranked) > 1:
        said = f"Use {name} ({worth}).{_certainty(compared)}"
    elif len(compared.names) > 1:
        said = f"Use {name} ({worth}): no other setting was judged at {compared.budget} {compared.unit}."
    else:
        only = f", {name}" if best.setting else ""
        said = f"There is one setting only{only}: {worth}. There is nothing to compare it with."
    return said + _left_behind(compared) + _about_beta(ranked) + _about_the_rest(best)


def _worth(best: Group, kind: str) -> str:
    if len(best.runs) == 1:
        return f"{kind} {best.iqm:.4g} of 1 run"
    text = f"interquartile mean of the {kind} {best.iqm:.4g}"
    if best.interval is None:
        return f"{text}, {len(best.runs)} runs from {best.scores.min():.4g} to {best.scores.max():.4g}"
    return f"{text}, 95% interval {best.interval[0]:.4g} to {best.interval[1]:.4g} over {len(best.runs)} runs"


def _certainty(compared: Comparison) -> str:
    best, *others = compared.ranked
    if any(len(group.runs) < 2 for group in compared.groups):
        return " Not sure at all: with a single run of a setting chance cannot be told from merit; add seeds."
    judged = {group.setting for group in compared.groups}
    missing = sum(not run.finished and run.setting in judged for run in compared.found)
    if missing:
        have = "1 run has" if missing == 1 else f"{missing} runs have"
        return f" Not sure: of these settings {have} failed, or not reached the end."
    rivals = [group for group in others if not _sure(best, group)]
    if not rivals:
        least = min(group.ahead or 0.0 for group in others)
        if least == 1:
            return " Fairly sure: each of its runs is better than every run of the other settings."
        pairs = f"in at least {math.floor(100 * least)}% of all pairs"
        return f" Fairly sure: its runs are better than those of each other setting {pairs}."
    names = ", ".join(group.name for group in rivals[:3]) + (" and others" if len(rivals) > 3 else "")
    close = next((group for group in rivals if group.scores.max() >= best.scores.min()), None)
    if close is None:
        fewest = min(len(group.runs) for group in (best, *rivals))
        return (
            f" Not sure: all its runs are better than those of {names}, but {fewest} of a setting are few; add seeds."
        )
    those = "those" if len(rivals) == 1 else f"those of {close.name}"
    pairs = f"its runs are better than {those} in {close.ahead:.0%} of all pairs"
    return f" Not sure: these runs cannot tell it from {names} ({pairs}); add seeds before you rely on it."


def _sure(best: Group, other: Group) -> bool:
    # So few runs that their order alone could be chance once in twenty times show nothing, whatever it is.
    if math.comb(len(best.runs) + len(other.runs), len(best.runs)) < 20:
        return False
    if other.ahead_interval is None:
        # Of some more, order is all there is.
        return bool(best.scores.min() > other.scores.max())
    return other.ahead_interval[0] > 0.5


def _left_behind(compared: Comparison) -> str:
    """A sentence about runs that do not compare."""
    behind = [run for run in compared.found if run.score is None and run.last(compared.metric) is not None]
    judged = sum(run.score is not None for run in compared.found)
    said = ""
    if twins := judged - sum(len(group.runs) for group in compared.groups):
        repeat = "1 run repeats" if twins == 1 else f"{twins} runs repeat"
        said += f" {repeat} another of the same setting and seed, and such count once."
    if behind:
        have, are = ("1 run has", "is") if len(behind) == 1 else (f"{len(behind)} runs have", "are")
        said += f" {have} been judged elsewhere than at {compared.budget} {compared.unit}, and {are} not compared."
    return said


def _about_beta(ranked: Sequence[Group]) -> str:
    """A sentence about where better betas may lie, by the weights of the best, and by those that were tried."""
    best, found = ranked[0], ranked[0].judgement
    betas = {group.beta for group in ranked if group.beta is not None}
    said = ""
    if best.beta is not None and len(betas) > 2:
        for end, beyond in ((min(betas), "smaller"), (max(betas), "larger")):
            if best.beta == end and not (found and found.useless in (beyond, "any")):
                said += f" It is the {beyond.removesuffix('r')}st beta tried: try {beyond} ones."
    if found:
        # What it would say to try may have been tried.
        tried = found.beta is not None and any(found.beta / 2 <= beta <= found.beta * 2 for beta in betas)
        said += f" {found.fact[0].upper()}{found.fact[1:]}{'' if tried else f'; {found.advice}'}."
    return said


def _about_the_rest(best: Group) -> str:
    """The likeliest reason why the best does not learn better, unless it lies with beta, of which all is said."""
    cause = next(iter(diagnosis.said(best.findings)), "")
    if not cause or (best.judgement and cause.startswith(best.judgement.fact)):
        return ""
    return f" Of the best: {cause}."
