"""The rows of a replay, and where the next observations of its transitions are, so that each is kept once."""

import math

import torch
from torch import Tensor

from awr_exp.data.schema import STORED, Schema
from awr_exp.data.stacks import AGE
from awr_exp.types import Spec

SHARE = 1 / 32
"""Rows for final observations that there is room for to begin with, for each of a replay's own. Where episodes are
shorter than 32 steps, they grow, twofold each time, for which all rows are there twice for a moment."""


def row_bytes(spec: Spec) -> int:
    """The bytes that a replay takes for each transition, but for final observations of episodes shorter than usual."""
    row = (1 + SHARE) * torch.float32.itemsize * Schema(spec.single, STORED).width
    return math.ceil(row) + torch.int64.itemsize + (AGE.itemsize if spec.history > 1 else 0)


class Following:
    """The rows of a replay, and for each slot of its ring the one that its next observation is in.

    table: [K * T * E + P, W], of which the first are `ring` [K, T, E, W] laid flat.
    at: [K, T, E] int64, rows of `table`. Most often it is that of the same environment's next slot. Where another
    episode follows, and after the newest step, it is one of the P below: those of the newest steps come first, which
    are `newest` [K, 1, E, W], then `kept`, then a queue of `used` rows that begins at `begin`: what was put in first is
    overwritten first, as slots are.
    """

    def __init__(self, members: int, steps: int, envs: int, kept: int, width: int, device: torch.device) -> None:
        self.at = torch.zeros(members, steps, envs, dtype=torch.int64, device=device)
        self.slots, self.begin, self.used = self.at.numel(), 0, 0
        self.fixed = self.slots + members * envs + kept
        """The first row of the queue."""
        self.room = max(1, int(SHARE * self.slots))
        lanes = torch.arange(members * envs, device=device).view(members, 1, envs)
        self.first = lanes // envs * (steps * envs) + lanes % envs
        """The rows of the first step of each environment, [K, 1, E]."""
        self.own = self.slots + lanes
        """What `at` says of the newest steps."""
        self._lay(torch.zeros(self.fixed + self.room, width, device=device))

    def _lay(self, table: Tensor) -> None:
        self.table, self.ring = table, table[: self.slots].view(*self.at.shape, -1)
        self.newest = table[self.slots :][: self.own.numel()].view(*self.own.shape, -1)

    def is_newest(self, following: Tensor) -> Tensor:
        """Whether what `at` says is where a newest next observation is."""
        return (following >= self.slots) & (following < self.slots + self.own.numel())

    def link(self, steps: Tensor, apart: Tensor, rows: Tensor, newest: Tensor) -> None:
        """Say what follows steps [S] along T, of which the last is the newest.

        apart: [K, S - 1, E] bool, whether the next observation of each but the last is not in the row of the step
        after it; rows: [n, W], where it is then, in order of time, member and environment; newest: [K, 1, E, W].
        """
        following = torch.cat([self._row_of(steps[1:]), self.own], 1)
        if len(rows):
            places = self._queued(len(rows))
            self.table.index_copy_(0, places, rows)
            # In order of time, so that the queue is.
            following[:, :-1].transpose(0, 1)[apart.transpose(0, 1)] = places
        self.at.index_copy_(1, steps, following)
        self.newest.copy_(newest)

    def _row_of(self, steps: Tensor) -> Tensor:
        """The rows [K, S, E] of steps [S] along T."""
        return self.first + steps.view(-1, 1) * self.at.shape[2]

    def keep(self, apart: Tensor, rows: Tensor) -> None:
        """Say what follows the first S steps, of all members alike, for good.

        apart: [E, S] bool, as in `link`; rows: [n, W], in order of environment and time.
        """
        first = self.fixed - len(rows)
        self.table[first : self.fixed] = rows
        places = first - 1 + apart.flatten().cumsum(0).view_as(apart)
        following = self._row_of(torch.arange(1, apart.shape[1] + 1, device=rows.device))
        self.at[:, : apart.shape[1]] = torch.where(apart, places, following.transpose(1, 2)).transpose(1, 2)

    def free(self, steps: Tensor) -> None:
        """Give up what follows the oldest steps [S] along T."""
        if not self.used:
            return
        freed = int((self.at.index_select(1, steps) >= self.fixed).sum())
        self.begin, self.used = (self.begin + freed) % self.room, self.used - freed

    def _queued(self, count: int) -> Tensor:
        """The places of so many more rows of the queue."""
        while self.used + count > self.room:
            self._grow()
        number = torch.arange(self.used, self.used + count, device=self.at.device)
        self.used += count
        return self.fixed + (self.begin + number) % self.room

    def _grow(self) -> None:
        """Double the room of the queue. What begins anew at its front goes on behind its end then."""
        self._lay(torch.cat([self.table, self.table[self.fixed :]]))
        around = (self.at >= self.fixed) & (self.at < self.fixed + max(0, self.begin + self.used - self.room))
        self.at[around] += self.room
        self.room *= 2
