"""A data set in two: episodes to learn from, and episodes that are held out to judge by."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.seeding import generator


def split(data: Transitions, share: float, seed: int) -> tuple[Transitions, Transitions]:
    """The episodes to learn from and those that are held out, each in the order of the data.

    share: of the episodes that are held out, at least one and never all; seed: by which they are drawn. Raises
    UserError for a single episode.
    """
    episodes = data.info.episodes
    if episodes < 2:
        raise UserError(f"data set '{data.info.id}' has one episode, so that none can be held out: choose holdout=none")
    count = min(episodes - 1, max(1, round(share * episodes)))
    out = np.zeros(episodes, bool)
    out[torch.randperm(episodes, generator=generator(seed, "holdout"))[:count].numpy()] = True
    mark = f"{share:g} by {seed}"
    return of_episodes(data, ~out, f"without {mark}"), of_episodes(data, out, mark)


def of_episodes(data: Transitions, chosen: NDArray[np.bool_], mark: str) -> Transitions:
    """The chosen recorded episodes of a data set with all parts and copies; mark: what tells them from the others."""
    info, recorded = data.info, torch.from_numpy(chosen)
    keep = recorded[data.origin].nonzero().flatten()
    own = replace(info, episode_returns=info.episode_returns[chosen], fingerprint=f"{info.fingerprint}/{mark}")
    return data.chosen(own, keep, origin=(recorded.cumsum(0) - 1)[data.origin[keep]])
