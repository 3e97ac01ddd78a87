"""Why a run does not learn: each number that tells it, its healthy range, and a sentence where it is outside.

One list of checks judges every run, by the names of its metrics: what a run lacks is not judged. Thresholds are read
from runs that were broken on purpose, see docs/diagnosis.md. Needs no torch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from awr_exp.math.temperature import COLLAPSED, ENDS, EQUAL, Judgement, judge

Metrics = Mapping[str, float]
WITHOUT_BETA = ("indicator", "constant", "Quantile", "Conditioned")
"""Weightings that are known not to heed beta; whoever writes one is believed to."""
SEVERAL = ("Mixture", "Flow", "CategoricalBins")
"""Heads that hold more than one mode."""
OWN_UNIT = ("ExpRunningScale", "Sigmoid")
"""Weightings by which beta is in spreads of the advantages, whatever these are."""
FOREIGN = 0.3
"""Share of evaluated steps unlike the data's above which they are of another environment, or far from the data."""
BEHIND = 1.5
"""Squared error of V, in variances of the advantage, above which it has not caught up with the returns' mean."""
MISSED = 0.2
"""Squared error of V, in variances of its target, up to which it is small, whatever the advantages are."""
UNEXPLAINED = 0.2
"""Explained variance below which the critic knows hardly more than a mean."""
ALIKE = 0.02
"""Spread of the targets, as a share of V, below which they are so alike that there is nothing to explain."""
POOR = 0.25
"""Score of the best tenth of the data below which there is nothing good in them."""
NARROW = 0.1
"""Lead of the best tenth of the data over their mean below which there is nothing to choose from."""
APART = 2.5
"""Distance of the policy's actions from the data's in their spreads.

Of those of any other state it is 1.41, and of a policy that acts at the bounds, on data that are even within them, 2.
"""
OUTDONE = 0.25
"""Spreads of the data's returns by which samples of the policy may be better than what is evaluated, but for chance."""
FALLEN = 1.0
"""Spreads of the last evaluation's returns by which the best one may be better."""
WORSE = -0.2
"""Spreads of the data's returns by which the policy may be worse than their mean, but for chance."""


@dataclass(frozen=True)
class Finding:
    """A number that was looked at: what it is, its healthy range in words, and what is wrong outside of it, or ""."""

    name: str
    value: float
    healthy: str
    sentence: str = ""


def diagnose(metrics: Metrics, config: Mapping[str, Any]) -> list[Finding]:
    """All findings that a run's metrics allow, in the order of causes: what comes first explains what follows.

    metrics: the last of each by its full name; config: values of the run's configuration by dotted names.
    """
    beta, wrong = _beta(metrics, config), judgement(metrics, config)
    weights = _weights(metrics, config, beta, wrong) if beta and "train/ess" in metrics else ()
    found = [
        *_environment(metrics),
        *_critic(metrics, config),
        *_data(metrics),
        *weights,
        *_policy(metrics, config),
        *_returns(metrics, config),
    ]
    # Where no action is better than another, nothing else matters.
    return found if not wrong or wrong.state != "all equal" else sorted(found, key=lambda one: one.name != SPREAD)


def said(findings: Sequence[Finding]) -> list[str]:
    """What is wrong, the likeliest cause first."""
    return [one.sentence for one in findings if one.sentence]


def judgement(metrics: Metrics, config: Mapping[str, Any]) -> Judgement | None:
    """What is wrong with the weights of a run; None where nothing is, or where they are not known."""
    beta, limit = _beta(metrics, config), config.get("agent.max_weight")
    if beta is None:
        return None
    own = {name.removeprefix("train/"): value for name, value in metrics.items() if name.startswith("train/")}
    weighting, limit = _weighting(config), limit if _is_number(limit) else None
    # Some solve for a beta of their own.
    heeds = weighting not in WITHOUT_BETA and "beta" not in own
    return judge(own, beta if heeds else None, limit, _in_spreads(config))


def _weighting(config: Mapping[str, Any]) -> str:
    """The name of the function or class of the weighting."""
    return _made_of(config, "agent.weighting", "weighting")


def _made_of(config: Mapping[str, Any], *places: str) -> str:
    """The name of the function or class of a part, which is in one of these places."""
    known = (config.get(name) for place in places for name in (f"{place}._target_", place))
    return next((name.rpartition(".")[2] for name in known if isinstance(name, str) and name[:2] != "${"), "")


def _in_spreads(config: Mapping[str, Any]) -> bool:
    """Whether beta is in units of the spread of the advantages."""
    return _weighting(config) in OWN_UNIT or config.get("agent.standardize_advantages") is True


def _beta(metrics: Metrics, config: Mapping[str, Any]) -> float | None:
    """Beta as it was solved for, or as it is set; None without weights of it."""
    beta = metrics.get("train/beta", config.get("agent.beta"))
    return float(beta) if _is_number(beta) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(name: str, value: float | None, healthy: str, wrong: bool, sentence: str) -> Iterator[Finding]:
    """The finding of a number, if it is known."""
    if value is not None:
        yield Finding(name, value, healthy, sentence if wrong else "")


def _environment(metrics: Metrics) -> Iterator[Finding]:
    share = metrics.get("diagnosis/foreign_steps")
    yield from _check(
        "steps unlike the data", share, f"up to {FOREIGN:.0%}", (share or 0) > FOREIGN,
        f"{share or 0:.0%} of the evaluated steps went as steps of the data do not: evaluate in the environment that "
        "the data come from, with its dynamics and its scale and order of observations, or keep nearer to the data",
    )  # fmt: skip


def _critic(metrics: Metrics, config: Mapping[str, Any]) -> Iterator[Finding]:
    explained, spread = metrics.get("train/explained_variance"), metrics.get("train/std_advantage")
    loss, mean = metrics.get("train/value_loss"), metrics.get("train/mean_value")
    # Var(target - V) is that of the advantages, and a share 1 - explained of Var(target).
    targets = spread / max(1 - explained, 1e-6) ** 0.5 if spread and explained is not None else None
    alike = targets is not None and mean is not None and targets < ALIKE * abs(mean)
    # Without a baseline the advantage is the target itself.
    against_v = _made_of(config, "agent") != "RWR"
    behind = loss / spread**2 if loss is not None and spread and against_v else None
    phased = "trainer.env_steps" in config and _made_of(config, "schedule") == "Phased"
    steps = "schedule.critic_steps" if phased else "agent.value_iters"
    # The same error in variances of the target.
    missed = 1.0 if behind is None or explained is None else behind * (1 - explained)
    lags = behind is not None and behind > BEHIND and missed > MISSED and not alike
    yield from _check(
        "squared error of V / variance of A", behind, f"up to {BEHIND:g}", lags,
        "the critic lags behind: V has not even caught up with the mean of the returns that it is to predict, and "
        f"advantages are its errors; try more {steps}, a larger agent.critic_lr or more updates",
    )  # fmt: skip
    yield from _check(
        "explained variance", explained, f"{UNEXPLAINED:g} or more",
        explained is not None and explained < UNEXPLAINED and not lags and not alike,
        f"the critic explains {max(0, explained or 0):.0%} of how returns differ, though it knows their mean: the "
        "rewards may not belong to these observations and actions, or depend on what is not observed; check the data, "
        "or train longer where train/explained_variance still rises",
    )  # fmt: skip


def _data(metrics: Metrics) -> Iterator[Finding]:
    lead, reach = metrics.get("diagnosis/coverage"), metrics.get("diagnosis/reach")
    poor = reach is not None and reach < POOR
    yield from _check(
        "score of the data's best tenth", reach, f"{POOR:g} or more", poor,
        f"even the best tenth of the data's episodes is poor (score {reach or 0:.2f}, where 0 is random and 1 an "
        "expert), so that hardly any good action is there to be copied: collect better data",
    )  # fmt: skip
    yield from _check(
        "lead of the data's best tenth", lead, f"{NARROW:g} or more", lead is not None and lead < NARROW and not poor,
        f"the data's episodes are about equally good (the best tenth leads by {lead or 0:.2g}), so that weights have "
        "nothing to choose and win hardly anything over agent=bc: try data of mixed quality",
    )  # fmt: skip


SPREAD = "spread of the advantages / beta"
ROWS: Mapping[str, tuple[str, str, Callable[[Metrics, float], float | None]]] = {
    "a switch": (SPREAD, "0.1 to 10", lambda own, beta: own["std"] / beta if "std" in own else None),
    "nearly equal": ("effective sample size", f"{COLLAPSED:g} to {EQUAL:g}", lambda own, beta: own.get("train/ess")),
    "saturated": ("clipped weights", f"up to {ENDS:.0%}", lambda own, beta: own.get("train/clipped")),
    "all zero": ("dead weights", f"up to {ENDS:.0%}", lambda own, beta: own.get("train/zero_weight")),
}
"""By what may be said of them: the numbers that tell the health of weights."""
SAME = {"all equal": "a switch", "collapsed": "nearly equal"}
"""What else is told by one of these numbers."""


def _weights(metrics: Metrics, config: Mapping[str, Any], beta: float, found: Judgement | None) -> Iterator[Finding]:
    own = dict(metrics)
    if "train/std_advantage" in metrics:
        own["std"] = 1.0 if _in_spreads(config) else metrics["train/std_advantage"]
    state, sentence = (SAME.get(found.state, found.state), f"{found.fact}; {found.advice}") if found else ("", "")
    for name, (title, healthy, value) in ROWS.items():
        yield from _check(title, value(own, beta), healthy, name == state, sentence)


def _policy(metrics: Metrics, config: Mapping[str, Any]) -> Iterator[Finding]:
    distance = metrics.get("diagnosis/policy_distance")
    remedy = "a larger agent.beta, or whatever else keeps it" if "agent.beta" in config else "what keeps it"
    yield from _check(
        "distance of the policy from the data", distance, f"up to {APART:g}", (distance or 0) > APART,
        f"the policy's actions are {distance or 0:.2g} spreads from the data's, where those of any other state would "
        f"be 1.4: how good they are is a guess; try {remedy} near the data",
    )  # fmt: skip
    lead = metrics.get("diagnosis/sampled_lead")
    yield from _check(
        "lead of samples over the mode", lead, f"up to {OUTDONE:g}", (lead or 0) > OUTDONE,
        f"samples of the policy have better returns than {_between(config)}",
    )  # fmt: skip


def _between(config: Mapping[str, Any]) -> str:
    """What samples do better than, and what to try of what is not chosen yet."""
    best_of, q = config.get("policy.best_of"), "with an agent that has a Q"
    if _is_number(best_of) and best_of > 1:
        return "those that its Q finds best, so that Q may be wrong where the data are few: try policy.best_of=1"
    if _made_of(config, "agent.head", "head") in SEVERAL:
        return f"the one action that evaluation makes of its modes: try policy.best_of=8 {q}, or more updates"
    return f"its mode, which may lie between two ways to act: try head=mixture, or policy.best_of=8 {q}"


def _returns(metrics: Metrics, config: Mapping[str, Any]) -> Iterator[Finding]:
    last, best = metrics.get("eval/return_mean"), metrics.get("diagnosis/best_return_mean")
    if last is not None and best is not None:
        gap = (best - last) / max(metrics.get("eval/return_std", 0.0), 0.05 * abs(best), 1e-6)
        yield from _check(
            "fall from the best evaluation", gap, f"up to {FALLEN:g}", gap > FALLEN,
            f"the last evaluation ({last:.4g}) is far below the best ({best:.4g}), whose policy awr_exp.load gives: "
            "try a smaller agent.actor_lr, or a larger agent.ema_decay",
        )  # fmt: skip
    lead = metrics.get("diagnosis/lead")
    cloned = _made_of(config, "agent") == "BC"
    yield from _check(
        "lead over the data's mean return", lead, f"{WORSE:g} or more", lead is not None and lead < WORSE,
        "the policy is worse than the mean of its data: its errors may add up along an episode, as with few data or "
        f"actions that depend on more than the observation{'' if cloned else '; compare with baseline=bc'}",
    )  # fmt: skip
