"""The part of a data set that is learnt from, without a copy of it."""

from dataclasses import replace

import numpy as np
import torch

from awr_exp.data.packing import episode_returns
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.types import RewardUnit


def select(
    data: Transitions,
    top_percent: float | None = None,
    reward_scale: float = 1.0,
    reward_shift: float = 0.0,
    max_transitions: int | None = None,
    history: int = 1,
) -> Transitions:
    """The chosen part of a data set: the best episodes by return, then the first transitions, in units of rewards.

    top_percent: share of the episodes to keep, at least one; max_transitions: whole episodes from the start, the
    last one cut where the cap falls and marked truncated there; reward_scale and reward_shift: see `RewardUnit`;
    history: observations that are seen at once. Raises UserError where no episode has as many.
    """
    info, lengths = data.info, data.lengths.numpy()
    keep = np.arange(len(lengths))
    if top_percent is not None:
        count = max(1, round(len(keep) * top_percent / 100))
        keep = np.sort(np.argsort(-info.episode_returns, kind="stable")[:count])
    kept_lengths = lengths[keep]
    if max_transitions is not None:
        left = max_transitions - (kept_lengths.cumsum() - kept_lengths)
        keep, kept_lengths = keep[left > 0], np.minimum(kept_lengths, left)[left > 0]
    if kept_lengths.sum() < len(data):
        returns, steps = info.episode_returns[keep], int(kept_lengths[-1])
        begin = int(data.lie.begins[int(keep[-1])])
        returns[-1:] = episode_returns(data.held[begin : begin + steps], np.array([steps - 1]), data.stored)
        info = replace(info, episode_returns=returns, fingerprint=f"{info.fingerprint}/{top_percent}/{max_transitions}")
        data = data.chosen(info, torch.as_tensor(keep), torch.as_tensor(kept_lengths))
    if history > kept_lengths.max() + 1:
        raise UserError(
            f"dataset.history={history} is longer than any episode of data set '{info.id}', of which the longest has "
            f"{kept_lengths.max() + 1} observations: choose a shorter one"
        )
    return in_unit(data.told(replace(info, history=history)), RewardUnit(reward_scale, reward_shift))


def in_unit(data: Transitions, unit: RewardUnit) -> Transitions:
    """The same with rewards in this unit."""
    if data.info.reward_unit == unit:
        return data
    mark = f"*{unit.scale}" + (f"+{unit.shift}" if unit.shift else "")
    return data.told(replace(data.info, reward_unit=unit, fingerprint=data.info.fingerprint + mark))
