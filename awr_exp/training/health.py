"""One plain sentence for each thing that the settings, data or metrics of a run say is wrong."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from awr_exp import layout


def at_start(value_iters: int | None) -> Iterator[tuple[str, str]]:
    """(name, sentence) of what the settings alone say."""
    if value_iters == 1:
        yield (
            "value_iters",
            "value_iters=1: the critic takes one step a batch and lags behind the policy; try agent.value_iters=5",
        )


def of_rewards(reward: Tensor, terminated: Tensor, scale: float, online: bool) -> Iterator[tuple[str, str]]:
    """(name, sentence) of all rewards there are [N], which `scale` multiplied, and where episodes terminate [N].

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
    """(name, sentence) of some observations [N, obs_dim] and what their entries are called."""
    coarse = np.flatnonzero(layout.coarse(obs.double().cpu().numpy())).tolist() if len(obs) else []
    if coarse:
        yield "coarse", layout.about_coarse([names[column] for column in coarse], "in the environment")
