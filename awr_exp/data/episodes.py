"""Data sets of episodes that are in memory, such as those that one's own function reads from files."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from awr_exp.data.content import FIELDS, check
from awr_exp.data.packing import episode_returns
from awr_exp.data.schema import STORED, Schema
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError, first_line
from awr_exp.types import DataInfo, Spec


def from_episodes(id: str, spec: Spec, episodes: Sequence[Mapping[str, Any]], **facts: Any) -> Transitions:
    """Transitions of episodes in order of time.

    Each episode has arrays `observations` [T + 1, obs_dim], the last of which is the final one, `actions` [T,
    action_dim], or [T] of one discrete action, whose choices count from 0, and `rewards` [T], and may have
    `terminated`: whether its end was one of the task, beyond which nothing has a value; otherwise it was cut there.
    facts: others of `DataInfo`, such as ref_min_score. Raises UserError, naming episode and array, for what has
    another shape or cannot be learnt from.
    """
    if not episodes:
        raise UserError(f"data set '{id}' has no episodes")
    names = [f"episode {number}" for number in range(len(episodes))]
    parts = [_packed(f"data set '{id}', {name}", spec, one) for name, one in zip(names, episodes, strict=True)]
    packed, lengths = torch.cat(parts), np.array([len(part) - 1 for part in parts])
    check(id, names, packed, lengths, spec)
    fingerprint = f"{id}:{hashlib.sha256(packed.numpy().tobytes()).hexdigest()[:16]}"
    info = DataInfo(id, episode_returns(packed, lengths, spec), fingerprint, **facts)
    return Transitions(packed, torch.as_tensor(lengths), spec, info)


def _packed(name: str, spec: Spec, episode: Mapping[str, Any]) -> torch.Tensor:
    """The rows of an episode as `Transitions` has them."""
    try:
        steps = len(episode["rewards"])
        shapes = {"obs": (steps + 1, spec.obs_dim), "action": (steps, *spec.action_shape), "reward": (steps,)}
        given = {column: np.asarray(episode[FIELDS[column]], np.float32) for column in shapes}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{name} cannot be read: {first_line(error)}") from None
    for column, shape in shapes.items():
        if given[column].shape != shape or not steps:
            raise UserError(f"{name}: {FIELDS[column]} are of the shape {given[column].shape}; it should be {shape}")
    # An episode that does not terminate will count as truncated.
    values = {flag: np.zeros(steps + 1, np.float32) for flag in ("terminated", "truncated")}
    values["terminated"][-2] = bool(episode.get("terminated", False))
    for column, own in given.items():
        # The final observation is that of a row without a step.
        values[column] = np.concatenate([own, np.zeros_like(own[: steps + 1 - len(own)])])
    schema = Schema(spec, STORED)
    return schema.write(torch.zeros(steps + 1, schema.width), values)
