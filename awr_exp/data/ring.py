"""Steps of many environments in one tensor, of which each observation is kept once, and what comes of them again."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from awr_exp.data.following import Following
from awr_exp.data.schema import STORED, Schema, chosen
from awr_exp.data.stacks import Past, last, together
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.types import Batch, Spec

AT_ONCE = 4096
"""Transitions of a data set that are copied at once."""


class Ring:
    """The last `turning` steps of E environments of each of K members, in slots, which are numbers below T * E.

    ring: [K, T, E, W] rows of `schema`. Every observation is kept once: the next one is in the row of the step after,
    or where else `following` says. Where the task shows several observations at once, a row has the last of them, and
    `past` knows the rows of the others. Before the first one of an episode, of a share of the data and of what is left
    of the past, there is that one again: the oldest steps are seen as if an episode had begun there.
    data: transitions whose shares are the first `kept` steps of each environment, of all members, for good.
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
        self.spec, self.members, self.envs, self.added = spec, members, envs, 0
        self.schema, self.device = Schema(spec.single, STORED), torch.device(device)
        # As many as are seen at once, so that the newest step always is as it was shown.
        self.kept, self.turning = (len(data) // envs if data else 0), max(spec.history, capacity // envs)
        shape = members, self.kept + self.turning, envs
        ends = self._ends(data) if data else torch.zeros(envs, 0, dtype=torch.bool)
        self.following = Following(*shape, int(ends.sum()), self.schema.width, self.device)
        self.base = self.following.first[:, 0, :1]
        """The row of each member's first slot in `table`, [K, 1]."""
        self.past = Past(*shape, self.kept, spec.history - 1, self.device)
        if data and self.kept:
            self._keep(data, ends)

    def _ends(self, data: Transitions) -> Tensor:
        """[E, kept] bool, where episodes of the data end, or the share of an environment, wherever that is."""
        ends = data.last[: self.envs * self.kept].view(self.envs, self.kept).to(self.device, copy=True)
        ends[:, -1:] = True
        return ends

    def _keep(self, data: Transitions, ends: Tensor) -> None:
        """Begin the ring with a share of the data for each environment, whose episodes end there."""
        final = []
        for env, begin in product(range(self.envs), range(0, self.kept, AT_ONCE)):
            steps = torch.arange(begin, min(begin + AT_ONCE, self.kept), device=data.device)
            batch, own = data.sample((env * self.kept + steps).unsqueeze(0)), ends[env, steps]
            rows, after = self._rows(replace(batch, truncated=batch.truncated | (own & ~batch.terminated)))
            self.ring[:, steps, env] = rows
            final.append(after[0, own])
        self.following.keep(ends, torch.cat(final))
        self._note_past(torch.arange(self.kept, device=self.device), self.ring[:, : self.kept])
        self._check(self.ring[:, : self.kept], f"data set '{data.info.id}' has")

    @property
    def table(self) -> Tensor:
        """The rows of all slots of all members, and of observations that no transition begins with, [n, W]."""
        return self.following.table

    @property
    def ring(self) -> Tensor:
        """See the class."""
        return self.following.ring

    def _rows(self, steps: Batch) -> tuple[Tensor, Tensor]:
        """The rows of steps, and others whose observations are the next ones; what else is in these means nothing."""
        rows, after = self.ring.new_zeros(2, *steps.reward.shape, self.schema.width)
        self.schema.write(rows, vars(steps) | {"obs": last(steps.obs, self.spec)})
        return rows, self.schema.write(after, {"obs": last(steps.next_obs, self.spec)}, ["obs"])

    @property
    def steps(self) -> int:
        """The number of steps that each environment has here."""
        return self.kept + self.collected

    @property
    def collected(self) -> int:
        """The number of these steps that are not from the data."""
        return min(self.added, self.turning)

    def extend(self, steps: Batch) -> None:
        """Add S steps of all environments, [K, S, E, ...] each.

        next_obs is the true one also where an episode ends, never the first of the next episode. Raises UserError for
        observations that are not of their space's type.
        """
        count = steps.reward.shape[1]
        rows, after = self._rows(steps)
        if count > self.turning:
            rows, after = rows[:, -self.turning :], after[:, -self.turning :]
        # The newest step so far, if it is still there then, is followed by the first of these.
        joins = self.added > 0 and count < self.turning
        before, newest = after[:, :-1], after[:, -1:]
        if joins:
            before = torch.cat([self.following.newest, before], 1) if count > 1 else self.following.newest
        apart = self.schema.differ(before, rows if joins else rows[:, 1:], "obs")
        final = before.transpose(0, 1)[apart.transpose(0, 1)] if apart.any() else rows.new_empty(0, rows.shape[-1])
        self.added += count
        self._append(rows, apart, final, newest)

    def _append(self, rows: Tensor, apart: Tensor, final: Tensor, newest: Tensor) -> None:
        """Put in rows [K, S, E, W] of the newest S of `added` steps; for the rest see `Following.link`.

        apart: may be of one step more, which is the one before.
        """
        chain = self._turning_slots(apart.shape[1] + 1)
        steps = chain[-rows.shape[1] :]
        if self.added > self.turning:
            self.following.free(steps)
        self.following.link(chain, apart, final, newest)
        self._note_past(chain, rows)
        self.ring.index_copy_(1, steps, rows)

    def _note_past(self, chain: Tensor, rows: Tensor) -> None:
        """Note the past of rows [K, S, E, W] of the last S steps of `chain` along T, which may have one before."""
        if self.spec.history == 1:
            return
        ends = self._ends_of(rows)
        before = self._ends_of(self.ring[:, chain[:1]]) if len(chain) > rows.shape[1] else torch.ones_like(ends[:, :1])
        self.past.follow(chain, torch.cat([before, ends[:, :-1]], 1))
        first = self.added - self.collected
        oldest = torch.arange(first, min(first + self.spec.history - 1, self.added), device=self.device)
        self.past.forget(self.kept + oldest % self.turning)

    def _ends_of(self, rows: Tensor) -> Tensor:
        """Whether an episode ends in rows [..., W]."""
        return self.schema.read(rows, "terminated") | self.schema.read(rows, "truncated")

    def _turning_slots(self, count: int) -> Tensor:
        """The places in the ring, along T, of the newest `count` steps, oldest first."""
        return self.kept + torch.arange(self.added - count, self.added, device=self.device) % self.turning

    def take(self, slots: Tensor, next_action: bool = False, **columns: Tensor | None) -> Batch:
        """The transitions in slots [K, B] or [1, B], and what columns that were `spread` [K, T * E] hold there.

        next_action: whether the batch says what was done next, too. The newest transitions, where that is not known
        yet, are then truncated.
        """
        shape = self.members, *slots.shape[1:]
        at = self.places(slots.flatten(1)).flatten()
        following = self.next_places(at)
        rows, after = (self.table.index_select(0, which).view(*shape, -1) for which in (at, following))
        seen = {"next_obs": self.schema.read(after, "obs")}
        if self.spec.history > 1:
            seen = self._stacks(at, seen["next_obs"])
        batch = self.schema.batch(rows, **seen, **chosen(columns, slots))
        if not next_action:
            return batch
        unknown = self.following.is_newest(following).view(shape) & ~batch.terminated
        return replace(batch, next_action=self.schema.read(after, "action"), truncated=batch.truncated | unknown)

    def _stacks(self, at: Tensor, after: Tensor) -> dict[str, Tensor]:
        """What is seen at once in rows `at` [n] of `table`, and after these, if `after` [..., numbers] follows."""
        singles = torch.cat([self._singles(at), after.reshape(len(at), 1, -1)], 1)
        parts = {"obs": singles[:, :-1], "next_obs": singles[:, 1:]}
        return {name: together(part, self.spec.single).view(*after.shape[:-1], -1) for name, part in parts.items()}

    def _singles(self, at: Tensor) -> Tensor:
        """What is seen at once of the rows `at` [n] of the table, one by one: [n, history, numbers]."""
        places = self.past.places(at)
        return self.schema.read(self.table, "obs", places.flatten()).unflatten(0, places.shape)

    def places(self, slots: Tensor) -> Tensor:
        """The rows of `table` of slots [..., K, B] or [..., 1, B], [..., K, B]."""
        return slots + self.base

    def next_places(self, places: Tensor) -> Tensor:
        """The rows of `table` that the next observations of these are in."""
        return self.following.at.flatten().index_select(0, places.flatten()).view(places.shape)

    def collected_by(self, member: int) -> Tensor:
        """The rows of a member's transitions, [T', E, W], in the order of the ring."""
        return self.ring[member, : self.steps]

    def cut(self, envs: Tensor) -> None:
        """Mark the newest transitions of environments [K, E] bool as truncated: what follows is another episode."""
        if self.added:
            newest = self.ring[:, self.kept + (self.added - 1) % self.turning]
            wanted = envs.to(self.device) & ~self.schema.read(newest, "terminated")
            self.schema.view(newest, "truncated").squeeze(-1).masked_fill_(wanted, 1)

    def state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint keeps of all that a member has collected, oldest first.

        Rows [1, T', E, W], whether the next observation of each is not in another one [1, T', E], and then its row, one
        after the other, [n, W].
        """
        steps = self._turning_slots(self.collected)
        following = self.following.at[member].index_select(0, steps)
        apart = following >= self.following.slots
        return {
            "replay": self.ring[member : member + 1].index_select(1, steps),
            "replay.apart": apart.unsqueeze(0),
            "replay.final": self.table.index_select(0, following[apart]),
        }

    def load(self, state: Mapping[str, Tensor], added: int) -> None:
        """Take over the `state` of all members after `added` steps.

        Raises ValueError if it is of another size, and UserError if its rows are or hold what nobody has collected.
        """
        rows, width = state["replay"], self.schema.width
        if rows.shape[-1] != width or "replay.apart" not in state:
            raise UserError("the run to resume keeps observations in another form than this version: begin it anew")
        apart, final = state["replay.apart"], state["replay.final"]
        self.added = added
        wanted = (self.members, self.collected, self.envs)
        if rows.shape != (*wanted, width):
            raise ValueError(f"a replay of {wanted} was to be restored, found {tuple(rows.shape[:-1])}")
        fits = apart.shape == wanted and apart.dtype == torch.bool and final.shape == (int(apart.sum()), width)
        if not (fits and apart[:, -1:].all()):
            raise ValueError("a replay was to be restored, whose final observations are not those of its episodes")
        for found in (rows, final):
            self._check(found, "the run to resume has a replay of")
        if self.collected:
            # The rows of each member follow those of the one before, here those of each step.
            number = (apart.flatten().cumsum(0) - 1).view_as(apart)
            order = number[:, :-1].transpose(0, 1)[apart[:, :-1].transpose(0, 1)]
            parts = rows, apart[:, :-1], final[order], final[number[:, -1:]]
            self._append(*(part.to(self.device) for part in parts))

    def _check(self, rows: Tensor, what: str) -> None:
        """Raises UserError, which begins with `what`, where rows [..., W] from a file are none of the task's."""
        views = [view for name in self.schema.columns for view in self.schema.views(rows.to(self.ring.dtype), name)]
        floats = [view for view in views if view.is_floating_point()]
        if rows.dtype != self.ring.dtype or not all(view.isfinite().all() for view in floats):
            raise UserError(f"{what} values that are no finite numbers: it is damaged")
        action, counts = self.schema.view(rows, "action"), torch.tensor(self.spec.counts, device=rows.device)
        # They count outputs of the policy: whoever looks up one that is not there reads other memory.
        if len(counts) and not ((action >= 0) & (action < counts) & (action == action.round())).all():
            raise UserError(f"{what} actions that its task has not: it is damaged")
