"""What K members have collected last, each for itself, for training while collecting goes on."""

from dataclasses import replace

import torch
from torch import Tensor

from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.types import Batch, Spec, Value


def width(spec: Spec) -> int:
    """Numbers that a transition takes."""
    return 2 * spec.obs_dim + spec.action_dim + 3


class Replay:
    """The last `capacity` transitions of each member, from E environments each that are stepped together.

    ring: [K, T, E, W] float32, columns obs | next_obs | action | reward | terminated | truncated. Rows are numbered
    0 to N - 1 by environment, and within one by time: each environment's rows are laid end to end, so that estimators
    see whole episodes. The newest row of an environment counts as the last of an episode that was cut there.
    data: transitions that every member has from the start and keeps, beside the others: they are the first `kept`
    steps of the environments, as if each had played a share of them.
    """

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
        self.device = torch.device(device)
        self.width = width(spec)
        self.kept, self.turning = (len(data) // envs if data else 0), max(1, capacity // envs)
        self.ring = torch.zeros(members, self.kept + self.turning, envs, self.width, device=self.device)
        self.added = 0
        if data:
            self._keep(data)

    def _keep(self, data: Transitions) -> None:
        for env in range(self.envs):
            rows = torch.arange(env * self.kept, (env + 1) * self.kept, device=data.device)
            batch = data.sample(rows.unsqueeze(0))
            # The share ends wherever its last row lies in an episode.
            batch.truncated[:, -1] = ~batch.terminated[:, -1]
            self.ring[:, : self.kept, env] = self._packed(batch)
        self._check(self.ring[:, : self.kept], f"data set '{data.info.id}' has")

    @property
    def steps(self) -> int:
        """Steps of each environment that there are."""
        return self.kept + self.collected

    @property
    def collected(self) -> int:
        """Steps of each environment that are not from the data."""
        return min(self.added, self.turning)

    @property
    def capacity(self) -> int:
        """Transitions of each member that there is room for."""
        return (self.kept + self.turning) * self.envs

    def __len__(self) -> int:
        """Transitions of each member."""
        return self.steps * self.envs

    def __repr__(self) -> str:
        kept = f", {self.kept * self.envs} of them kept" if self.kept else ""
        size = f"{len(self)} of at most {self.capacity} transitions{kept}"
        return f"Replay({self.members} members with {size}, from {self.envs} environments each; {self.spec})"

    def rows(self, member: int) -> Tensor:
        """[T', E, W], all that a member has, in the order of the ring."""
        return self.ring[member, : self.steps]

    def _packed(self, batch: Batch) -> Tensor:
        """[..., W]"""
        action = batch.action.unsqueeze(-1) if self.spec.discrete else batch.action
        numbers = torch.stack([batch.reward.float(), batch.terminated.float(), batch.truncated.float()], -1)
        return torch.cat([batch.obs, batch.next_obs, action.float(), numbers], -1).to(self.device)

    def extend(self, steps: Batch) -> None:
        """S steps of all environments, [K, S, E, ...] each.

        next_obs is the true one also where an episode ends, never the first of the next episode.
        """
        rows = self._packed(steps)
        self.added += rows.shape[1]
        newest = rows[:, -self.turning :]
        self.ring.index_copy_(1, self._turning_slots(newest.shape[1]), newest)

    def _turning_slots(self, count: int) -> Tensor:
        """Where the newest `count` steps lie in the ring, oldest first."""
        return self.kept + torch.arange(self.added - count, self.added, device=self.device) % self.turning

    def slots(self, rows: Tensor) -> Tensor:
        """Where rows lie in a member's ring, as indices of [T * E]."""
        return self._turned(rows % self.steps) * self.envs + rows // self.steps

    def by_age(self, numbers: Tensor) -> Tensor:
        """Where transitions lie that are numbered from the oldest step on, all environments of a step together."""
        return self._turned(numbers // self.envs) * self.envs + numbers % self.envs

    def _turned(self, step: Tensor) -> Tensor:
        """Where steps lie in the ring that are numbered from the oldest on."""
        turned = self.kept + (self.added - self.collected + step - self.kept) % self.turning
        return torch.where(step < self.kept, step, turned)

    def _columns(self, chosen: slice) -> Tensor:
        """[K, N, ...], some of the columns by number."""
        rows = torch.arange(len(self), device=self.device)
        return self.ring[..., chosen].flatten(1, 2).index_select(1, self.slots(rows))

    @property
    def reward(self) -> Tensor:
        """[K, N]"""
        return self._columns(slice(-3, -2)).squeeze(-1)

    @property
    def terminated(self) -> Tensor:
        """[K, N] bool."""
        return self._columns(slice(-2, -1)).squeeze(-1).bool()

    @property
    def last(self) -> Tensor:
        """[K, N] bool, the last row of each episode as far as it is known."""
        last = self._columns(slice(-2, None)).any(-1).unflatten(1, (self.envs, self.steps))
        last[..., -1] = True
        return last.flatten(1)

    @property
    def longest(self) -> int:
        return self.steps

    def values(self, value: Value, chunk: int) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') [K, N] of all transitions; an observation that two share passes once."""
        obs_dim = self.spec.obs_dim
        # In the order of the ring, where no row has to be copied first.
        obs = self.ring[:, : self.steps, :, :obs_dim].flatten(1, 2)
        in_ring = torch.cat([value(part) for part in obs.split(chunk, 1)], 1)
        values = in_ring.index_select(1, self.slots(torch.arange(len(self), device=self.device)))
        next_values = values.roll(-1, 1)
        # The last rows of episodes, of any member: what follows them there is another episode's.
        ends = self.last.any(0).nonzero().squeeze(1)
        final = self.ring[..., obs_dim : 2 * obs_dim].flatten(1, 2).index_select(1, self.slots(ends))
        parts = [value(part) for part in final.split(chunk, 1)]
        return values, next_values.index_copy_(1, ends, torch.cat(parts, 1))

    def sample(self, rows: Tensor, target: Tensor | None = None) -> Batch:
        """The transitions `rows` [K, B], with their targets from target [K, N]."""
        batch = self.take(self.slots(rows))
        return batch if target is None else replace(batch, target=target.gather(1, rows))

    def take(self, slots: Tensor, target: Tensor | None = None) -> Batch:
        """The transitions in `slots` [K, B] of the ring, with what target [K, T * E] holds in them."""
        obs_dim, action_dim = self.spec.obs_dim, self.spec.action_dim
        # Flat over members as well: one gather of whole rows.
        member = torch.arange(self.members, device=self.device).unsqueeze(1) * (self.ring.shape[1] * self.envs)
        row = self.ring.flatten(0, 2).index_select(0, (member + slots).flatten()).view(*slots.shape, -1)
        obs, next_obs, action, rest = row.split([obs_dim, obs_dim, action_dim, 3], -1)
        return Batch(
            obs=obs,
            action=action.squeeze(-1).long() if self.spec.discrete else action,
            reward=rest[..., 0],
            next_obs=next_obs,
            terminated=rest[..., 1].bool(),
            truncated=rest[..., 2].bool(),
            target=None if target is None else target.gather(1, slots),
        )

    @property
    def offsets(self) -> dict[str, int]:
        """Numbers of a row of `table`, and where in it the parts of a transition are that are not its observation."""
        obs, width = self.spec.obs_dim, self.width
        return {"width": width, "next_obs": obs, "action": 2 * obs, "reward": width - 3, "terminated": width - 2}

    def table(self, member: int) -> Tensor:
        """The rows of a member's transitions."""
        return self.ring[member]

    def places(self, slots: Tensor) -> Tensor:
        """The row of `table` of each slot."""
        return slots

    def spread(self, values: Tensor) -> Tensor:
        """From values [K, N] of all transitions to [K, T * E], as `take` wants them."""
        slots = self.slots(torch.arange(len(self), device=self.device))
        ring = values.new_zeros(self.members, self.ring.shape[1] * self.envs)
        return ring.index_copy_(1, slots, values)

    def newest(self, steps: int) -> Batch:
        """The last `steps` of each environment, or as many as are kept, as a batch [K, E, steps]."""
        steps = min(steps, self.steps)
        at = torch.arange(self.steps - steps, self.steps, device=self.device)
        rows = (torch.arange(self.envs, device=self.device).unsqueeze(1) * self.steps + at).flatten()
        batch = self.sample(rows.expand(self.members, -1))
        shape = (self.envs, steps)
        parts = {name: tensor.unflatten(1, shape) for name, tensor in vars(batch).items() if tensor is not None}
        return Batch(**parts)

    def cut(self, envs: Tensor) -> None:
        """Mark the newest transitions of environments [K, E] bool as truncated: what follows is another episode."""
        if self.added:
            newest = self.ring[:, self.kept + (self.added - 1) % self.turning]
            newest[..., -1] = torch.where(envs.to(self.device) & ~newest[..., -2].bool(), 1.0, newest[..., -1])

    def state(self, member: int) -> Tensor:
        """[1, T', E, W], what a checkpoint of a member keeps of what was collected, oldest first."""
        return self.ring[member : member + 1].index_select(1, self._turning_slots(self.collected))

    def load(self, state: Tensor, added: int) -> None:
        """Take over the `state` of all members, [K, T', E, W], after `added` steps.

        Raises ValueError if it is of another size, and UserError if it holds what nobody has collected.
        """
        self.added = added
        wanted = (self.members, self.collected, self.envs, self.width)
        if state.shape != wanted:
            raise ValueError(f"a replay of {wanted} was to be restored, found {tuple(state.shape)}")
        self._check(state, "the run to resume has a replay of")
        self.ring.index_copy_(1, self._turning_slots(self.collected), state.to(self.device))

    def _check(self, rows: Tensor, what: str) -> None:
        """Raises UserError, which begins with `what`, where rows [..., W] from a file are none of the task's."""
        action = rows[..., 2 * self.spec.obs_dim]
        count = self.spec.num_actions
        # They count outputs of the policy: whoever looks up one that is not there reads other memory.
        if count and not ((action >= 0) & (action < count) & (action == action.round())).all():
            raise UserError(f"{what} actions that its task has not: it is damaged")
        if rows.dtype != self.ring.dtype or not rows.isfinite().all():
            raise UserError(f"{what} values that are no finite numbers: it is damaged")
