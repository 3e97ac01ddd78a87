"""One plain sentence for each thing that the metrics of a run say is wrong."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from awr_exp import layout

COLLAPSED = 0.05
"""Effective sample size, as a share of the batch, below which a handful of rows decides each step."""
GREEDY, CLONING = 0.05, 10.0
"""beta in standard deviations of the advantage: below the first the weights are a switch, above the second 1."""


def at_start(value_iters: int | None) -> Iterator[tuple[str, str]]:
    """(name, sentence) of what the settings alone say."""
    if value_iters == 1:
        yield (
            "value_iters",
            "value_iters=1: the critic takes one step a batch and lags behind the policy; try agent.value_iters=5",
        )


def of_rewards(reward: Tensor, terminated: Tensor, scale: float, online: bool) -> Iterator[tuple[str, str]]:
    """As `of_metrics`, of all rewards there are [N], which `scale` multiplied, and where episodes terminate [N].

    Rewards that are alike are no fault where episodes terminate: how soon is then what there is to learn.
    """
    if not reward.numel():
        return
    low, high = float(reward.min()), float(reward.max())
    if low == high and (low == 0 or not bool(terminated.any())):
        so_far = " so far" if online else ""
        outcome = "nothing is learnt until one differs" if online else "the result is behaviour cloning"
        yield (
            "rewards",
            f"all rewards{so_far} are {low / scale + 0.0:g}, so that no action is better than another and {outcome}: "
            "check where they come from",
        )


def of_observations(obs: Tensor, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """As `of_metrics`, of some observations [N, obs_dim] and what their entries are called."""
    coarse = np.flatnonzero(layout.coarse(obs.double().cpu().numpy())).tolist() if len(obs) else []
    if coarse:
        yield "coarse", layout.about_coarse([names[column] for column in coarse], "in the environment")


def of_metrics(metrics: Mapping[str, float], beta: float | None, standardized: bool) -> Iterator[tuple[str, str]]:
    """(name, sentence) of what one report of a member says; the name lets each be said once.

    beta: None where the weights do not depend on it.
    """
    ess, spread = metrics.get("ess"), metrics.get("std_advantage")
    if ess is None or spread is None:
        return
    spread = 1.0 if standardized else spread
    if metrics.get("mean_weight", 1) == 0:
        yield (
            "collapsed",
            "all weights are 0: no advantage is positive; check the critic, or try another weighting",
        )
    elif beta is not None and ess < COLLAPSED:
        yield (
            "collapsed",
            f"the weights collapsed: {ess:.1%} of a batch decides each step; try agent.beta={_round(spread)}, "
            "a smaller agent.max_weight or agent.standardize_advantages=true with agent.beta=1",
        )
    if beta is None:
        return
    if beta < GREEDY * spread:
        yield (
            "small_beta",
            f"beta {beta:g} is very small for advantages that spread by {spread:.3g}: the weights act as a switch "
            f"between 0 and max_weight; try agent.beta={_round(spread)} or agent.standardize_advantages=true "
            "with agent.beta=1",
        )
    elif beta > CLONING * spread:
        yield (
            "large_beta",
            f"beta {beta:g} is very large for advantages that spread by {spread:.3g}: all weights are nearly equal "
            f"and the result is behaviour cloning; try agent.beta={_round(spread)}",
        )


def _round(value: float) -> str:
    return f"{float(f'{value:.1g}'):g}" if value > 0 else "0.3"
