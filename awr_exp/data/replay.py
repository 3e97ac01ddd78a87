"""What K members have collected last, each for itself, for training while collecting goes on."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from awr_exp.data.schema import Schema, chosen
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.types import OWN_UNIT, Batch, Spec, Value


class Replay:
    """The last `capacity` transitions of each member, from E environments each that are stepped together.

    ring: [K, T, E, W] rows of `schema`, of which a slot, a number below T * E, is one of each member. Transitions are
    numbered 0 to N - 1 by environment, and within one by time: each environment's are laid end to end, so that
    estimators see whole episodes. The newest one of an environment counts as the last of an episode that was cut there.
    rewards: from those in the ring to those that training sees, which are the same.
    data: transitions that every member has from the start and keeps, beside the others: they are the first `kept`
    steps of the environments, as if each had played a share of them.
    """

    rewards = OWN_UNIT

    def __init__(
        self,
        spec: Spec,
        members: int,
        envs: int,
        capacity: int,
        device: torch.device | str = "cpu",
        data: Transitions | None = None,
    ) -> None:
        self.spec, self.members, self.envs = spec, members, envs
        self.schema, self.device = Schema(spec), torch.device(device)
        self.kept, self.turning = (len(data) // envs if data else 0), max(1, capacity // envs)
        self.ring = torch.zeros(members, self.kept + self.turning, envs, self.schema.width, device=self.device)
        self.added = 0
        if data:
            self._keep(data)

    def _keep(self, data: Transitions) -> None:
        """Begin the ring with a share of the data for each environment."""
        for env in range(self.envs):
            rows = torch.arange(env * self.kept, (env + 1) * self.kept, device=data.device)
            batch = data.sample(rows.unsqueeze(0))
            # The share ends wherever its last row lies in an episode.
            batch.truncated[:, -1] = ~batch.terminated[:, -1]
            self.schema.write(self.ring[:, : self.kept, env], vars(batch))
        self._check(self.ring[:, : self.kept], f"data set '{data.info.id}' has")

    @property
    def steps(self) -> int:
        """The number of steps that each environment has here."""
        return self.kept + self.collected

    @property
    def collected(self) -> int:
        """The number of these steps that are not from the data."""
        return min(self.added, self.turning)

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

    def extend(self, steps: Batch) -> None:
        """Add S steps of all environments, [K, S, E, ...] each.

        next_obs is the true one also where an episode ends, never the first of the next episode. Raises UserError for
        observations that are not of their space's type.
        """
        rows = self.schema.write(self.ring.new_zeros(*steps.reward.shape, self.schema.width), vars(steps))
        self.added += rows.shape[1]
        newest = rows[:, -self.turning :]
        self.ring.index_copy_(1, self._turning_slots(newest.shape[1]), newest)

    def _turning_slots(self, count: int) -> Tensor:
        """The places in the ring, along T, of the newest `count` steps, oldest first."""
        return self.kept + torch.arange(self.added - count, self.added, device=self.device) % self.turning

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
        terminated, truncated = (self.schema.read(self.ring, name) for name in ("terminated", "truncated"))
        last = (terminated | truncated).flatten(1, 2).index_select(1, self._order)
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
        parts = self.ring[:, : self.steps].flatten(1, 2).split(chunk, 1)
        in_ring = torch.cat([value(self.schema.read(part, "obs")) for part in parts], 1)
        values = in_ring.index_select(1, self._order)
        # The last rows of episodes, of any member: what follows them there is another episode's.
        ends = self.last.any(0).nonzero().squeeze(1)
        final = [value(self.sample(rows.unsqueeze(0)).next_obs) for rows in ends.split(chunk)]
        return values, values.roll(-1, 1).index_copy_(1, ends, torch.cat(final, 1))

    def sample(self, rows: Tensor, next_action: bool = False, **columns: Tensor | None) -> Batch:
        """See `Episodes`. Rows and so the batch may be [K, ...] or [1, ...] of any shape."""
        return replace(self.take(self.slots_of(rows), next_action), **chosen(columns, rows))

    def take(self, slots: Tensor, next_action: bool = False, **columns: Tensor | None) -> Batch:
        """The transitions in slots [K, B] or [1, B], and what columns that were `spread` [K, T * E] hold there.

        next_action: whether the batch says what was done next, too. The newest transitions, where that is not known
        yet, are then truncated.
        """
        batch = self.schema.batch(self._rows(slots), **chosen(columns, slots))
        if not next_action:
            return batch
        step, newest = slots // self.envs, self.kept + (self.added - 1) % self.turning
        following = torch.where(step < self.kept, step + 1, self.kept + (step + 1 - self.kept) % self.turning)
        unknown = (step == newest) & ~batch.terminated
        rows = self._rows(following * self.envs + slots % self.envs)
        action = self.schema.read(rows, "action")
        return replace(batch, next_action=action, truncated=batch.truncated | unknown)

    def _rows(self, slots: Tensor) -> Tensor:
        """The rows in slots, [K, B, W]."""
        # Flat over members as well: one gather of whole rows.
        member = torch.arange(self.members, device=self.device).view(-1, *[1] * (slots.dim() - 1))
        places = member * (self.ring.shape[1] * self.envs) + slots
        return self.ring.flatten(0, 2).index_select(0, places.flatten()).view(*places.shape, -1)

    def table(self, member: int) -> Tensor:
        """All rows that a member has, [T', E, W], in the order of the ring."""
        return self.ring[member, : self.steps]

    def places(self, slots: Tensor) -> Tensor:
        """The row of `table` of each slot."""
        return slots

    def spread(self, values: Tensor) -> Tensor:
        """Values [K, N] of all transitions in the order of the ring, [K, T * E], as `take` wants them."""
        ring = values.new_zeros(self.members, self.ring.shape[1] * self.envs)
        return ring.index_copy_(1, self._order, values)

    def newest(self, steps: int) -> Batch:
        """The last `steps` of each environment, or as many as are kept, as a batch [K, E, steps]."""
        rows = torch.arange(len(self), device=self.device).view(1, self.envs, self.steps)
        return self.sample(rows[..., max(0, self.steps - steps) :])

    def cut(self, envs: Tensor) -> None:
        """Mark the newest transitions of environments [K, E] bool as truncated: what follows is another episode."""
        if self.added:
            newest = self.ring[:, self.kept + (self.added - 1) % self.turning]
            wanted = envs.to(self.device) & ~self.schema.read(newest, "terminated")
            self.schema.view(newest, "truncated").squeeze(-1).masked_fill_(wanted, 1)

    def state(self, member: int) -> Tensor:
        """What a checkpoint keeps of all that a member has collected, [1, T', E, W], oldest first."""
        return self.ring[member : member + 1].index_select(1, self._turning_slots(self.collected))

    def load(self, state: Tensor, added: int) -> None:
        """Take over the `state` of all members, [K, T', E, W], after `added` steps.

        Raises ValueError if it is of another size, and UserError if its rows are or hold what nobody has collected.
        """
        self.added = added
        wanted = (self.members, self.collected, self.envs, self.schema.width)
        if state.shape[-1] != self.schema.width:
            raise UserError("the run to resume keeps observations in another form than this version: begin it anew")
        if state.shape != wanted:
            raise ValueError(f"a replay of {wanted} was to be restored, found {tuple(state.shape)}")
        self._check(state, "the run to resume has a replay of")
        self.ring.index_copy_(1, self._turning_slots(self.collected), state.to(self.device))

    def _check(self, rows: Tensor, what: str) -> None:
        """Raises UserError, which begins with `what`, where rows [..., W] from a file are none of the task's."""
        views = [view for name in self.schema.columns for view in self.schema.views(rows.to(self.ring.dtype), name)]
        if rows.dtype != self.ring.dtype or not all(view.isfinite().all() for view in views):
            raise UserError(f"{what} values that are no finite numbers: it is damaged")
        action, counts = self.schema.view(rows, "action"), torch.tensor(self.spec.counts, device=rows.device)
        # They count outputs of the policy: whoever looks up one that is not there reads other memory.
        if len(counts) and not ((action >= 0) & (action < counts) & (action == action.round())).all():
            raise UserError(f"{what} actions that its task has not: it is damaged")
