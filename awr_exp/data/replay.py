"""What K members have collected last, each for itself, for training while collecting goes on."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from awr_exp.data.ring import Ring
from awr_exp.data.schema import chosen
from awr_exp.data.stacks import together
from awr_exp.math.blocks import side_by_side
from awr_exp.types import OWN_UNIT, Batch, Value


class Replay(Ring):
    """The last `capacity` transitions of each member, from E environments each that are stepped together.

    Transitions are numbered 0 to N - 1 by environment, and within one by time: each environment's are laid end to end,
    so that estimators see whole episodes. The newest one of an environment counts as the last of an episode that was
    cut there.
    rewards: from those in the ring to those that training sees, which are the same.
    data: transitions that every member has from the start and keeps, beside the others: they are the first `kept`
    steps of the environments, as if each had played a share of them.
    """

    rewards = OWN_UNIT

    @property
    def capacity(self) -> int:
        """The number of transitions that each member has room for."""
        return (self.kept + self.turning) * self.envs

    def __len__(self) -> int:
        """The number of transitions that each member has."""
        return self.steps * self.envs

    def __repr__(self) -> str:
        kept = f", {self.kept * self.envs} of them kept" if self.kept else ""
        size = f"{len(self)} of at most {self.capacity} transitions{kept}"
        return f"Replay({self.members} members with {size}, from {self.envs} environments each; {self.spec})"

    def slots(self, env: Tensor, step: Tensor) -> Tensor:
        """The slots of steps of environments, each of which is numbered from the oldest step on."""
        turned = self.kept + (self.added - self.collected + step - self.kept) % self.turning
        return torch.where(step < self.kept, step, turned) * self.envs + env

    def slots_of(self, rows: Tensor) -> Tensor:
        """The slots of transitions."""
        return self.slots(rows // self.steps, rows % self.steps)

    @property
    def _order(self) -> Tensor:
        """[N], the slot of each transition."""
        return self.slots_of(torch.arange(len(self), device=self.device))

    @property
    def reward(self) -> Tensor:
        """[K, N], scaled."""
        return self._column("reward")

    @property
    def terminated(self) -> Tensor:
        """[K, N] bool."""
        return self._column("terminated")

    def _column(self, name: str) -> Tensor:
        return self.schema.read(self.ring, name).flatten(1, 2).index_select(1, self._order)

    @property
    def last(self) -> Tensor:
        """[K, N] bool, the last row of each episode as far as it is known."""
        last = self._ends_of(self.ring).flatten(1, 2).index_select(1, self._order)
        last.unflatten(1, (self.envs, self.steps))[..., -1] = True
        return last

    @property
    def longest(self) -> int:
        return self.steps

    def blocks(self, rows: int) -> Iterator["Replay"]:
        """All of it at once: it is in memory."""
        yield self

    def values(self, value: Value, chunk: int) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') [K, N] of all transitions; an observation that two share passes once."""
        # In the order of the ring, where no row has to be copied first.
        parts = (self._seen_from(begin, min(begin + chunk, len(self))) for begin in range(0, len(self), chunk))
        in_ring = side_by_side((value(part) for part in parts), len(self))
        values = in_ring.index_select(1, self._order)
        # The last rows of episodes, of any member: what follows them there is another episode's.
        ends = self.last.any(0).nonzero().squeeze(1)
        final = (value(self.sample(rows.unsqueeze(0)).next_obs) for rows in ends.split(chunk))
        return values, values.roll(-1, 1).index_copy_(1, ends, side_by_side(final, len(ends)))

    def _seen_from(self, begin: int, end: int) -> Tensor:
        """The observations in the slots from `begin` on and before `end`, [K, n, obs_dim], copied only where needed."""
        if self.spec.history == 1:
            return self.schema.read(self.ring[:, : self.steps].flatten(1, 2)[:, begin:end], "obs")
        places = self.places(torch.arange(begin, end, device=self.device).unsqueeze(0))
        return together(self._singles(places.flatten()), self.spec.single).unflatten(0, places.shape)

    def sample(self, rows: Tensor, next_action: bool = False, **columns: Tensor | None) -> Batch:
        """See `Episodes`. Rows and so the batch may be [K, ...] or [1, ...] of any shape."""
        return replace(self.take(self.slots_of(rows), next_action), **chosen(columns, rows))

    def spread(self, values: Tensor) -> Tensor:
        """Values [K, N] of all transitions in the order of the ring, [K, T * E], as `take` wants them."""
        ring = values.new_zeros(self.members, self.ring.shape[1] * self.envs)
        return ring.index_copy_(1, self._order, values)

    def newest(self, steps: int) -> Batch:
        """The last `steps` of each environment, or as many as are kept, as a batch [K, E, steps]."""
        rows = torch.arange(len(self), device=self.device).view(1, self.envs, self.steps)
        return self.sample(rows[..., max(0, self.steps - steps) :])
