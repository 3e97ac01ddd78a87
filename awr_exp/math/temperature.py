"""What the weights of a run say of its beta: the one judgement of its warnings and of the report. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

COLLAPSED = 0.05
"""Effective sample size, as a share of the batch, below which a handful of rows decides each step."""
ENDS = 0.75
"""Share of weights at max_weight or practically 0 above which beta grades hardly any: a switch, or saturated."""
EQUAL = 0.99
"""Effective sample size above which weights are those of behaviour cloning; beta is then ten spreads of A or more."""
FLAT = 1e-6
"""Spread of advantages that are all the same."""


@dataclass(frozen=True)
class Judgement:
    """What is wrong with weights.

    state: in a word or two; fact: a sentence without its full stop; advice: another one; useless: the direction in
    which a beta beyond this one changes nothing for the better, "smaller" or "larger", or ""; beta: one to compare
    with, or None; useless is "any" where no beta helps.
    """

    state: str
    fact: str
    advice: str
    useless: str = ""
    beta: float | None = None


def judge(
    metrics: Mapping[str, float], beta: float | None, max_weight: float | None, standardized: bool
) -> Judgement | None:
    """What a run's metrics say is wrong with its weights; None where nothing is, or where they are not known.

    metrics: by name without `train/`; beta: None where the weights do not depend on it; max_weight: None where it is
    unknown; standardized: whether beta is in units of the spread of the advantages, which is then 1.
    """
    if "ess" not in metrics or "std_advantage" not in metrics:
        return None
    if beta is None:
        none = metrics.get("mean_weight") == 0
        fact = "all weights are 0: no advantage is good enough"
        advice = "check the critic, or try another weighting, or another threshold of it"
        return Judgement("all zero", fact, advice, "any") if none else None
    if metrics["std_advantage"] <= FLAT or metrics.get("equal_rewards"):
        what = "rewards" if metrics.get("equal_rewards") else "advantages"
        fact = f"all {what} are the same, so that no action is better than another"
        return Judgement("all equal", fact, "check where the rewards come from, for no beta changes that", "any")
    spread = 1.0 if standardized else metrics["std_advantage"]
    # Where weights pass max_weight, the weighting does not heed it.
    limited = max_weight is not None and metrics.get("max_weight", 0.0) <= max_weight * 1.001
    clipped, zero = (metrics.get("clipped", 0.0) if limited else 0.0), metrics.get("zero_weight", 0.0)
    if metrics.get("mean_weight") == 0 or clipped >= ENDS:
        return _beyond(metrics, beta, clipped, standardized)
    return _graded(metrics["ess"], clipped, zero, beta, spread, standardized, limited)


def _graded(
    ess: float, clipped: float, zero: float, beta: float, spread: float, standardized: bool, limited: bool
) -> Judgement | None:
    """The judgement of weights that are neither all at max_weight nor all 0; limited: whether they heed max_weight."""
    other = float(f"{spread:.1g}")
    aside = f"beta {beta:g} is very {{}} for advantages that spread by {spread:.3g}"
    if ess < COLLAPSED:
        fact = f"the weights collapsed: {ess:.1%} of a batch decides each step"
        less = "a smaller agent.max_weight, " if limited else ""
        other = other if other > beta else float(f"{2 * beta:.1g}")
        return Judgement("collapsed", fact, f"try {less}{_instead(other, standardized)}", "smaller", other)
    if clipped + zero >= ENDS:
        switch = f"a switch, {clipped:.0%} of them at max_weight and {zero:.0%} practically 0"
        fact = f"{aside.format('small')}: the weights are {switch}, and a smaller beta changes nothing"
        return Judgement("a switch", fact, f"compare with {_instead(other, standardized)}", "smaller", other)
    if ess >= EQUAL:
        cloning = "all weights are nearly equal, as in behaviour cloning"
        if beta <= spread:
            # A few advantages far from the others make the spread, or the weighting is not of beta alone.
            return Judgement("nearly equal", cloning, "try a smaller agent.beta", "larger")
        fact = f"{aside.format('large')}: {cloning}, and a larger beta changes nothing"
        return Judgement("nearly equal", fact, f"compare with agent.beta={other:g}", "larger", other)
    return None


def _beyond(metrics: Mapping[str, float], beta: float, clipped: float, standardized: bool) -> Judgement:
    """The judgement of weights that are nearly all at max_weight or 0, since advantages lie far on one side of 0."""
    far = max(metrics["std_advantage"], abs(metrics.get("mean_advantage", 0.0)))
    other = None if standardized else float(f"{far:.1g}")
    advice = "try a larger agent.max_weight" if other is None else f"try {_instead(other, standardized)}"
    if not clipped:
        fact = f"all weights are 0: every advantage is far below 0 beside beta {beta:g}"
        return Judgement("all zero", fact, advice, "smaller", other)
    fact = (
        f"the weights are saturated: {clipped:.0%} of them are at max_weight, so that nearly all rows count alike, as "
        f"in behaviour cloning, and an effective sample size of {metrics['ess']:.2f} is no sign of health"
    )
    return Judgement("saturated", fact, advice, "smaller", other)


def _instead(beta: float, standardized: bool) -> str:
    return f"agent.beta={beta:g}" + ("" if standardized else " or agent.standardize_advantages=true with agent.beta=1")
