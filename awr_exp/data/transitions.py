"""A whole data set as flat tensors on the training device."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.schema import STORED, Schema, chosen
from awr_exp.errors import UserError
from awr_exp.math.normalizer import units
from awr_exp.types import Batch, DataInfo, RewardUnit, Spec, Value

DEVICE_SHARE = 0.8
"""Share of a GPU's free memory that a data set may take; a larger one stays on the host and streams."""


class Transitions:
    """N transitions of E episodes, laid end to end in order of time.

    packed: [M, W] rows of `schema`, with M = N + E. Each episode has one more row, of its final observation, so that
    the next observation of a row is in the row below it and is stored once.
    rows: [N] int64, the packed row of each transition; last: [N] bool, the last transition of each episode. Its
    `truncated` is set wherever it did not terminate, be it by a time limit or because the data were cut there.
    stored: the task of a row; spec: that of what is seen, which is `info.history` rows at once. Before an episode
    begins there is its first observation.
    origin: [E], the recorded episode that each is, or is a part or a copy of; None: each is one of its own. Of those
    `info` tells, and they alone know nothing of one another.
    """

    def __init__(
        self, packed: Tensor, lengths: Tensor, stored: Spec, info: DataInfo, origin: Tensor | None = None
    ) -> None:
        self.packed, self.lengths, self.stored, self.info = packed, lengths, stored, info
        self.origin = torch.arange(len(lengths)) if origin is None else origin
        self.spec = stored.stacked(info.history)
        self.schema, self.device = Schema(stored, STORED), packed.device
        ends = lengths.cumsum(0)
        self.longest = int(lengths.max())
        # One extra row for each episode that lies before a transition's own.
        self.rows = torch.arange(int(ends[-1])) + torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        self.last = torch.zeros(len(self.rows), dtype=torch.bool)
        self.last[ends - 1] = True
        self.first: Tensor | None = None
        if info.history > 1:
            starts = (lengths + 1).cumsum(0) - (lengths + 1)
            self.first = torch.repeat_interleave(starts, lengths + 1)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        info = self.info
        returns = f"return {info.return_mean:.1f} ± {info.return_std:.1f}"
        return (
            f"Transitions({info.id}: {len(self)} in {info.episodes} episodes, {returns}, on {self.device}; {self.spec})"
        )

    def to(self, device: torch.device | str) -> "Transitions":
        """Move to the device, in place; the packed rows stay on the host if they would crowd a GPU."""
        self.device = torch.device(device)
        size = self.packed.numel() * self.packed.element_size()
        if self.device.type != "cuda" or size < DEVICE_SHARE * torch.cuda.mem_get_info(self.device)[0]:
            self.packed = self.packed.to(self.device)
        self.rows, self.last = self.rows.to(self.device), self.last.to(self.device)
        return self

    @property
    def whole(self) -> Tensor:
        """[info.episodes], the first of the parts and copies of each recorded episode: it begins where that does."""
        number = torch.arange(len(self.origin))
        return torch.full((self.info.episodes,), len(number)).scatter_reduce(0, self.origin, number, "amin")

    @property
    def capacity(self) -> int:
        """The number of transitions that there is room for."""
        return len(self)

    def observations(self) -> Tensor:
        """[M, obs_dim], final observations included."""
        return self._seen_from(0, len(self.packed))

    def _seen_from(self, begin: int, end: int) -> Tensor:
        """The observations at the packed rows from `begin` on and before `end`, copied only where they must be."""
        if self.first is None:
            return self.schema.read(self.packed[begin:end], "obs")
        return self.seen(torch.arange(begin, end, device=self.packed.device))

    def seen(self, at: Tensor) -> Tensor:
        """The observations at packed rows [n], [n, obs_dim], with those before them where a history is seen."""
        if self.first is None:
            return self.schema.read(self.packed, "obs", at)
        before = torch.arange(1 - self.info.history, 1, device=at.device)
        rows = torch.maximum(at.unsqueeze(1) + before, self.first.to(at.device)[at].unsqueeze(1))
        frames = self.schema.read(self.packed, "obs", rows.flatten()).unflatten(0, rows.shape)
        parts = frames.split([entry.width for entry in self.stored.entries], -1)
        return torch.cat([part.flatten(1) for part in parts], -1)

    def actions(self, count: int) -> Tensor:
        """The actions of the first `count` transitions, [n, action_dim], or [n] of discrete ones."""
        return self.schema.read(self.packed, "action", self.rows[:count].to(self.packed.device))

    def values(self, value: Value, chunk: int) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') [K, N] of all transitions; an observation that two share passes once."""
        parts = (
            self._seen_from(begin, min(begin + chunk, len(self.packed))) for begin in range(0, len(self.packed), chunk)
        )
        of_rows = torch.cat([value(part.to(self.device)) for part in parts], 1)
        return of_rows[:, self.rows], of_rows[:, self.rows + 1]

    @property
    def reward(self) -> Tensor:
        """[N], as training sees them."""
        return self._column("reward")

    @property
    def terminated(self) -> Tensor:
        """[N] bool."""
        return self._column("terminated")

    def _column(self, name: str) -> Tensor:
        return self.schema.read(self.packed, name, self.rows.to(self.packed.device)).to(self.device)

    def sample(self, rows: Tensor, next_action: bool = False, **columns: Tensor | None) -> Batch:
        """See `Episodes`. The batch is [1, B] where `rows` are."""
        at = self.rows.index_select(0, rows.flatten()).to(self.packed.device)
        found = self.packed.index_select(0, at).to(self.device, non_blocking=True).view(*rows.shape, -1)
        others = {"next_obs": self.seen(at + 1)}
        if self.first is not None:
            others["obs"] = self.seen(at)
        if next_action:
            others["next_action"] = self.schema.read(self.packed, "action", at + 1)
        others = {name: own.to(self.device, non_blocking=True).unflatten(0, rows.shape) for name, own in others.items()}
        return replace(self.schema.batch(found, next_obs=others["next_obs"]), **others, **chosen(columns, rows))

    def table(self, member: int) -> Tensor:
        """The rows of the transitions, which are those of every member."""
        return self.packed

    def places(self, indices: Tensor) -> Tensor:
        """The row of `table` of each transition."""
        return self.rows[indices]

    def obs_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [obs_dim] of the observations, final ones included; see `units`."""
        # In pieces, in float64: a mapped data set need not fit the memory, and 1M float32 sums would drift.
        pieces = self.packed.split(max(1, min(262_144, 2**26 // self.stored.obs_dim)))
        zero = torch.zeros(self.stored.obs_dim, dtype=torch.float64, device=self.packed.device)
        mean = sum((self.schema.read(piece, "obs").double().sum(0) for piece in pieces), zero) / len(self.packed)
        squares = ((self.schema.read(piece, "obs").double() - mean).square().sum(0) for piece in pieces)
        found = units(mean, sum(squares, zero) / len(self.packed), self.stored.entries)
        widths = [entry.width for entry in self.stored.entries]
        every = (torch.cat([part.repeat(self.info.history) for part in each.split(widths)]) for each in found)
        mean, std = (each.float().to(self.device) for each in every)
        return mean, std


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
    packed, schema, info = data.packed, data.schema, data.info
    lengths = data.lengths.numpy()
    keep = np.arange(len(lengths))
    if top_percent is not None:
        count = max(1, round(len(keep) * top_percent / 100))
        keep = np.sort(np.argsort(-info.episode_returns, kind="stable")[:count])
    kept_lengths = lengths[keep]
    if max_transitions is not None:
        left = max_transitions - (kept_lengths.cumsum() - kept_lengths)
        keep, kept_lengths = keep[left > 0], np.minimum(kept_lengths, left)[left > 0]
    if kept_lengths.sum() < len(data):
        starts = (lengths + 1).cumsum() - (lengths + 1)
        packed = torch.cat([packed[s : s + n + 1] for s, n in zip(starts[keep], kept_lengths, strict=True)])
        ends = torch.as_tensor((kept_lengths + 1).cumsum() - 2)
        schema.view(packed, "truncated")[ends] = 1 - schema.view(packed, "terminated")[ends]
        for name in STORED[1:]:
            schema.view(packed, name)[ends + 1] = 0
        info = replace(
            info,
            episode_returns=episode_returns(packed, kept_lengths, data.stored),
            fingerprint=f"{info.fingerprint}/{top_percent}/{max_transitions}",
        )
    if history > kept_lengths.max() + 1:
        raise UserError(
            f"dataset.history={history} is longer than any episode of data set '{info.id}', of which the longest has "
            f"{kept_lengths.max() + 1} observations: choose a shorter one"
        )
    chosen = Transitions(packed, torch.as_tensor(kept_lengths), data.stored, replace(info, history=history))
    return in_unit(chosen, RewardUnit(reward_scale, reward_shift))


def in_unit(data: Transitions, unit: RewardUnit) -> Transitions:
    """The same with rewards in this unit."""
    info = data.info
    if info.reward_unit == unit:
        return data
    packed = data.packed.clone()
    data.schema.view(packed, "reward")[data.rows, 0] = unit.learnt(info.reward_unit.own(data.reward))
    mark = f"*{unit.scale}" + (f"+{unit.shift}" if unit.shift else "")
    info = replace(info, reward_unit=unit, fingerprint=info.fingerprint + mark)
    return Transitions(packed, data.lengths, data.stored, info, data.origin)


def episode_returns(packed: Tensor, lengths: NDArray[np.int64], spec: Spec) -> NDArray[np.float64]:
    """The sum of rewards of each episode of packed rows."""
    # The extra row of each episode holds reward 0, so it may be summed along.
    starts = (lengths + 1).cumsum() - (lengths + 1)
    return np.add.reduceat(Schema(spec, STORED).read(packed, "reward").double().numpy(), starts)
