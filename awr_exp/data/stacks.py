"""Observations that are seen several at once, as gymnasium's FrameStackObservation shows them, from single ones."""

import torch
from torch import Tensor

from awr_exp.types import Spec

AGE = torch.int32
"""What ages of steps are kept in."""


def last(obs: Tensor, spec: Spec) -> Tensor:
    """The last of the observations that are seen at once: [..., spec.single.obs_dim] of obs [..., spec.obs_dim]."""
    if spec.history == 1:
        return obs
    parts = obs.split([entry.width for entry in spec.entries], -1)
    return torch.cat([part[..., -(part.shape[-1] // spec.history) :] for part in parts], -1)


def together(singles: Tensor, single: Spec) -> Tensor:
    """What is seen at once of observations [n, history, single.obs_dim], the oldest first: [n, the same laid flat]."""
    parts = [part.flatten(1) for part in singles.split([entry.width for entry in single.entries], -1)]
    return torch.cat(parts, -1) if len(parts) > 1 else parts[0]


class Past:
    """Which rows of a replay's ring [K, T, E] hold the observations that are seen at once with that of a slot.

    ages: [K, T, E], how many steps before each are of its episode and still there, `most` at the most; kept: steps at
    the beginning of T that stay. The others are a ring.
    """

    def __init__(self, members: int, steps: int, envs: int, kept: int, most: int, device: torch.device) -> None:
        self.kept, self.turning, self.most = kept, steps - kept, most
        self.ages = torch.zeros(members, steps if most else 0, envs, dtype=AGE, device=device)

    def follow(self, steps: Tensor, begins: Tensor) -> None:
        """Learn the ages of the last S of these steps along T; begins: [K, S, E] bool, where an episode does.

        Where none begins in the first of them, the step before that comes first.
        """
        number = torch.arange(begins.shape[1], device=begins.device).view(1, -1, 1)
        before = self.ages[:, steps[:1]].long()
        first = torch.where(begins, number, -1 - before).cummax(1).values
        ages = (number - first).clamp(max=self.most).to(AGE)
        self.ages.index_copy_(1, steps[-len(number[0]) :], ages)

    def forget(self, oldest: Tensor) -> None:
        """These steps [n] along T are the oldest that are left."""
        left = torch.arange(len(oldest), dtype=AGE, device=oldest.device).view(1, -1, 1)
        self.ages.index_copy_(1, oldest, self.ages.index_select(1, oldest).minimum(left))

    def places(self, at: Tensor) -> Tensor:
        """The rows of what is seen at once, the oldest first, [n, most + 1], of rows `at` [n] of the ring laid flat.

        Before an episode's first observation there is that one again.
        """
        envs = self.ages.shape[2]
        step = (at // envs % (self.kept + self.turning)).unsqueeze(1)
        back = torch.arange(self.most, -1, -1, device=at.device)
        back = back.minimum(self.ages.flatten().index_select(0, at).unsqueeze(1))
        around = (step >= self.kept) & (step - back < self.kept)
        return at.unsqueeze(1) - envs * (back - self.turning * around)
