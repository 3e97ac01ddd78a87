"""One plain sentence for each thing that the rewards or observations of a run say is wrong."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from awr_exp import layout


def of_rewards(reward: Tensor, terminated: Tensor, scale: float, online: bool) -> str | None:
    """Of all rewards there are [N], which `scale` multiplied, and where episodes terminate [N].

    Rewards that are alike are no fault where episodes terminate: how soon is then what there is to learn.
    """
    if not reward.numel():
        return None
    low, high = float(reward.min()), float(reward.max())
    if low != high or (low != 0 and bool(terminated.any())):
        return None
    so_far = " so far" if online else ""
    outcome = "nothing is learnt until one differs" if online else "the result is behaviour cloning"
    return (
        f"all rewards{so_far} are {low / scale + 0.0:g}, so that no action is better than another and {outcome}: "
        "check where they come from"
    )


def of_observations(obs: Tensor, names: Sequence[str]) -> str | None:
    """Of some observations [N, obs_dim] and what their entries are called."""
    coarse = np.flatnonzero(layout.coarse(obs.double().cpu().numpy())).tolist() if len(obs) else []
    return layout.about_coarse([names[column] for column in coarse], "in the environment") if coarse else None
