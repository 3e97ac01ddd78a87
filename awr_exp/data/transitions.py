"""A whole data set as rows of numbers, on the training device or wherever there is room for them."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from awr_exp.data import mapped
from awr_exp.data.packing import laid_out
from awr_exp.data.places import Places
from awr_exp.data.schema import STORED, Schema, chosen
from awr_exp.data.stacks import together
from awr_exp.data.statistics import obs_statistics
from awr_exp.math.blocks import side_by_side
from awr_exp.types import OWN_UNIT, Batch, DataInfo, RewardUnit, Spec, Value


class Transitions:
    """N transitions of E episodes in order of time.

    packed: [M, W] rows of `schema`, with M = N + E, of all episodes end to end. Each has one more row, of its final
    observation, so that the next observation of a row is in the row below it and is stored once. Its last transition
    is `truncated` wherever it did not terminate, be it by a time limit or because the data were cut there.
    stored: the task of a row; spec: of what is seen, `info.history` rows at once, the first one as often as needed.
    origin: [E], the recorded episode that each is, or is a part or a copy of; None: each is one of its own. Of those
    `info` tells, and they alone know nothing of one another.
    held: the rows as they are kept, in memory or in a file, maybe among others. begins: [E] those in which episodes
    begin; None: `held` is `packed`. unit: that of the rewards in `held`; None: that of `info`.
    """

    def __init__(
        self,
        packed: Tensor,
        lengths: Tensor,
        stored: Spec,
        info: DataInfo,
        origin: Tensor | None = None,
        begins: Tensor | None = None,
        unit: RewardUnit | None = None,
    ) -> None:
        self.held, self.lengths, self.stored, self.info = packed, lengths, stored, info
        self.origin = torch.arange(len(lengths)) if origin is None else origin
        self.spec = stored.stacked(info.history)
        self.schema, self.device = Schema(stored, STORED), packed.device
        self.longest = int(lengths.max())
        self.lie = Places(lengths, begins)
        self.lie.to(packed.device)
        self.unit = unit or info.reward_unit
        self.rewards = info.reward_unit.of(self.unit)
        """From the rewards in `held` to those that training sees."""

    def __len__(self) -> int:
        return self.lie.count

    def __repr__(self) -> str:
        info = self.info
        said = f"{len(self)} in {info.episodes} episodes, return {info.return_mean:.1f} ± {info.return_std:.1f}"
        return f"Transitions({info.id}: {said}, on {self.device}; {self.spec})"

    def to(self, device: torch.device | str) -> "Transitions":
        """Move to the device, in place; the rows stay on the host if they would crowd a GPU."""
        self.device = torch.device(device)
        if not mapped.crowds(self.held, self.device):
            self.held = self.held.to(self.device)
            self.lie.to(self.held.device)
        return self

    def chosen(
        self, info: DataInfo, keep: Tensor, lengths: Tensor | None = None, origin: Tensor | None = None
    ) -> "Transitions":
        """The episodes `keep` [E'] of these, in rising order, without a copy of their rows.

        lengths: [E'], of which the last alone may be smaller than now: that episode is cut there.
        """
        lengths = self.lengths[keep] if lengths is None else lengths
        begins = self.lie.begins[keep.to(self.lie.begins.device)]
        return self._of(self.held, lengths, info, origin, begins)

    def told(self, info: DataInfo) -> "Transitions":
        """The same with other facts, without a copy of the rows."""
        return self._of(self.held, self.lengths, info, self.origin, self.lie.begins if self.lie.apart else None)

    def _of(self, held: Tensor, lengths: Tensor, info: DataInfo, *lie: Tensor | None) -> "Transitions":
        made = Transitions(held, lengths, self.stored, info, lie[0], lie[1], self.unit)
        made.device = self.device
        return made

    def blocks(self, rows: int) -> Iterator["Transitions"]:
        """All of these in parts of whole episodes, each of at most so many transitions or of a single episode.

        Rows in a file come in smaller parts, each of which stays in memory while one column after another is read.
        """
        if mapped.is_read_at_random(self.held):
            rows = min(rows, max(1, mapped.PART // (self.schema.width * self.held.element_size())))
        for first, end in self.lie.parts(rows):
            yield self if end - first == len(self.lengths) else self._part(first, end)

    def _part(self, first: int, end: int) -> "Transitions":
        """The episodes from `first` on and before `end`."""
        lengths, begins = self.lengths[first:end], self.lie.begins[first:end]
        held = self.held[int(begins[0]) : int(begins[-1]) + int(lengths[-1]) + 1]
        own = begins - begins[0] if self.lie.apart else None
        return self._of(held, lengths, self.info, self.origin[first:end], own)

    @property
    def packed(self) -> Tensor:
        """See the class. Raises UserError where a copy has to be made for it, and does not fit the memory."""
        if self.lie.apart or self.rewards != OWN_UNIT:
            self.held, self.lie = laid_out(self), Places(self.lengths)
            self.unit, self.rewards = self.info.reward_unit, OWN_UNIT
            self.lie.to(self.held.device)
        return self.held

    @property
    def whole(self) -> Tensor:
        """[info.episodes], the first of the parts and copies of each recorded episode: it begins where that does."""
        number = torch.arange(len(self.origin))
        return torch.full((self.info.episodes,), len(number)).scatter_reduce(0, self.origin, number, "amin")

    @property
    def capacity(self) -> int:
        """The number of transitions that there is room for."""
        return len(self)

    @property
    def rows(self) -> Tensor:
        """[N] int64, the packed row of each transition."""
        return self.lie.packed().to(self.device)

    @property
    def last(self) -> Tensor:
        """[N] bool, the last transition of each episode."""
        return self.lie.last().to(self.device)

    def between(self, begin: int, end: int) -> Tensor:
        """The packed rows from `begin` on and before `end`, as they are held; copied only where they must be."""
        if self.lie.apart:
            return self.held.index_select(0, self.lie.between(begin, end))
        mapped.read_soon(self.held[begin:end])
        return self.held[begin:end]

    def observations(self, begin: int = 0, end: int | None = None) -> Tensor:
        """[n, obs_dim] of packed rows, of all of them by default; copied only where they must be."""
        end = self.lie.rows if end is None else min(end, self.lie.rows)
        if self.info.history == 1:
            return self.schema.read(self.between(begin, end), "obs")
        return self.seen(self.lie.between(begin, end))

    def seen(self, at: Tensor) -> Tensor:
        """The observations at held rows [n], [n, obs_dim], with those before them where a history is seen."""
        if self.info.history == 1:
            return self.schema.read(self.held, "obs", at)
        before = torch.arange(1 - self.info.history, 1, device=at.device)
        rows = torch.maximum(at.unsqueeze(1) + before, self.lie.first(at).unsqueeze(1))
        singles = self.schema.read(self.held, "obs", rows.flatten()).unflatten(0, rows.shape)
        return together(singles, self.stored)

    def actions(self, count: int) -> Tensor:
        """The actions of the first `count` transitions, [n, action_dim], or [n] of discrete ones."""
        return self.column("action", 0, count)

    def values(self, value: Value, chunk: int) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') [K, N] of all transitions; an observation that two share passes once."""
        parts = (self.observations(begin, begin + chunk) for begin in range(0, self.lie.rows, chunk))
        of_rows, rows = side_by_side((value(part.to(self.device)) for part in parts), self.lie.rows), self.rows
        return of_rows[:, rows], of_rows[:, rows + 1]

    @property
    def reward(self) -> Tensor:
        """[N], as training sees them."""
        return self.column("reward")

    @property
    def terminated(self) -> Tensor:
        """[N] bool."""
        return self.column("terminated")

    def column(self, name: str, begin: int = 0, end: int | None = None) -> Tensor:
        """A column but observations of the transitions from `begin` on and before `end`, [n, ...]."""
        at = self.places(torch.arange(begin, min(len(self) if end is None else end, len(self))))
        found = self.schema.read(self.held, name, at).to(self.device)
        return self.rewards.learnt(found) if name == "reward" else found

    def sample(self, rows: Tensor, next_action: bool = False, **columns: Tensor | None) -> Batch:
        """See `Episodes`. The batch is [1, B] where `rows` are."""
        at = self.places(rows.flatten())
        found = mapped.sent(self.held.index_select(0, at), self.device).view(*rows.shape, -1)
        others = {"next_obs": self.seen(at + 1)}
        if self.info.history > 1:
            others["obs"] = self.seen(at)
        if next_action:
            others["next_action"] = self.schema.read(self.held, "action", at + 1)
        others = {name: mapped.sent(own, self.device).unflatten(0, rows.shape) for name, own in others.items()}
        batch = replace(self.schema.batch(found, next_obs=others["next_obs"]), **others, **chosen(columns, rows))
        if self.rewards != OWN_UNIT:
            batch = replace(batch, reward=self.rewards.learnt(batch.reward))
        if self.lie.apart:
            # The last episode may go on in the rows.
            end = (rows == len(self) - 1).to(self.device)
            batch = replace(batch, truncated=batch.truncated | end & ~batch.terminated)
        return batch

    def expect(self, rows: Tensor) -> None:
        """Transitions [...] will be sampled soon: those that are in a file are asked for at once."""
        if mapped.is_read_at_random(self.held):
            mapped.ask_for(self.held, self.places(rows))

    @property
    def table(self) -> Tensor:
        """The rows of the transitions, which are those of every member; their rewards are still those of `held`."""
        return self.held

    def places(self, indices: Tensor) -> Tensor:
        """The row of `table` of each transition."""
        return self.lie.of(indices)

    def next_places(self, places: Tensor) -> Tensor:
        """The rows of `table` that the next observations of these are in."""
        return places + 1

    def obs_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [obs_dim] of the observations, final ones included; see `units`."""
        return obs_statistics(self)
