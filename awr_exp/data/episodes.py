"""Data sets of episodes that are in memory, such as those that one's own function reads from files."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from awr_exp.data.transitions import DataInfo, Transitions
from awr_exp.errors import UserError, first_line
from awr_exp.types import Spec

FIELDS = ("observations", "actions", "rewards")


def from_episodes(id: str, spec: Spec, episodes: Sequence[Mapping[str, Any]], **facts: Any) -> Transitions:
    """Transitions of episodes in order of time.

    Each episode has arrays `observations` [T + 1, obs_dim], the last of which is the final one, `actions`
    [T, action_dim] or, discrete, [T] of numbers from 0, and `rewards` [T], and may have `terminated`: whether its end
    was one of the task, beyond which nothing has a value; otherwise it was cut there. facts: others of `DataInfo`, such
    as ref_min_score. Raises UserError, naming the episode and the array, for what has another shape or is not finite.
    """
    if not episodes:
        raise UserError(f"data set '{id}' has no episodes")
    packed = torch.cat([_packed(f"episode {n} of data set '{id}'", spec, one) for n, one in enumerate(episodes)])
    info = DataInfo(
        id=id,
        episode_returns=np.array([np.asarray(one["rewards"], np.float64).sum() for one in episodes]),
        transitions=sum(len(one["rewards"]) for one in episodes),
        fingerprint=f"{id}:{hashlib.sha256(packed.numpy().tobytes()).hexdigest()[:16]}",
        **facts,
    )
    return Transitions(packed, torch.tensor([len(one["rewards"]) for one in episodes]), spec, info)


def _packed(name: str, spec: Spec, episode: Mapping[str, Any]) -> torch.Tensor:
    """The rows of an episode as `Transitions` has them."""
    try:
        arrays = [torch.as_tensor(np.asarray(episode[field], np.float32)) for field in FIELDS]
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name} cannot be read: {first_line(error)}") from None
    steps = arrays[2].numel()
    wanted = [(steps + 1, spec.obs_dim), (steps,) if spec.discrete else (steps, spec.action_dim), (steps,)]
    for field, array, shape in zip(FIELDS, arrays, wanted, strict=True):
        if tuple(array.shape) != shape or not steps:
            raise UserError(f"{name} has {field} of the shape {tuple(array.shape)}; they should be {shape}")
        if not array.isfinite().all():
            raise UserError(f"{name} has {field} that are not finite")
    obs, action, reward = arrays
    if spec.num_actions is not None:
        last = spec.num_actions - 1
        if not ((action >= 0) & (action <= last) & (action == action.round())).all():
            raise UserError(f"{name} has actions that are no whole numbers from 0 to {last}")
    rows = torch.zeros(steps + 1, spec.obs_dim + spec.action_dim + 3)
    rows[:, : spec.obs_dim] = obs
    rows[:steps, spec.obs_dim : -3] = action.view(steps, -1)
    rows[:steps, -3] = reward
    rows[steps - 1, -2 if episode.get("terminated", False) else -1] = 1
    return rows
