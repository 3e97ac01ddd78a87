"""A whole data set as flat tensors on the training device."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.schema import STORED, Schema, chosen
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
    """

    def __init__(self, packed: Tensor, lengths: Tensor, spec: Spec, info: DataInfo) -> None:
        self.packed, self.lengths, self.spec, self.info = packed, lengths, spec, info
        self.schema, self.device = Schema(spec, STORED), packed.device
        ends = lengths.cumsum(0)
        self.longest = int(lengths.max())
        # One extra row for each episode that lies before a transition's own.
        self.rows = torch.arange(int(ends[-1])) + torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        self.last = torch.zeros(len(self.rows), dtype=torch.bool)
        self.last[ends - 1] = True

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
    def capacity(self) -> int:
        """The number of transitions that there is room for."""
        return len(self)

    def observations(self) -> Tensor:
        """[M, obs_dim], final observations included."""
        return self.schema.read(self.packed, "obs")

    def actions(self, count: int) -> Tensor:
        """The actions of the first `count` transitions, [n, action_dim], or [n] of discrete ones."""
        return self.schema.read(self.packed, "action", self.rows[:count].to(self.packed.device))

    def values(self, value: Value, chunk: int) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') [K, N] of all transitions; an observation that two share passes once."""
        of_rows = torch.cat([value(self.schema.read(part, "obs")) for part in self.packed.split(chunk)], 1)
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
        following = {"next_obs": self._below(at, "obs", rows.shape)}
        if next_action:
            following["next_action"] = self._below(at, "action", rows.shape)
        return self.schema.batch(found, **following, **chosen(columns, rows))

    def _below(self, at: Tensor, name: str, shape: torch.Size) -> Tensor:
        """A column of the packed rows below `at`, [*shape, ...]."""
        found = self.schema.read(self.packed, name, at + 1)
        return found.to(self.device, non_blocking=True).unflatten(0, shape)

    def table(self, member: int) -> Tensor:
        """The rows of the transitions, which are those of every member."""
        return self.packed

    def places(self, indices: Tensor) -> Tensor:
        """The row of `table` of each transition."""
        return self.rows[indices]

    def obs_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [obs_dim] of the observations, final ones included; see `units`."""
        # In pieces, in float64: a mapped data set need not fit the memory, and 1M float32 sums would drift.
        pieces = self.packed.split(max(1, min(262_144, 2**26 // self.spec.obs_dim)))
        zero = torch.zeros(self.spec.obs_dim, dtype=torch.float64, device=self.packed.device)
        mean = sum((self.schema.read(piece, "obs").double().sum(0) for piece in pieces), zero) / len(self.packed)
        squares = ((self.schema.read(piece, "obs").double() - mean).square().sum(0) for piece in pieces)
        mean, std = units(mean, sum(squares, zero) / len(self.packed), self.spec.entries)
        return mean.float().to(self.device), std.float().to(self.device)


def select(
    data: Transitions,
    top_percent: float | None = None,
    reward_scale: float = 1.0,
    reward_shift: float = 0.0,
    max_transitions: int | None = None,
) -> Transitions:
    """The chosen part of a data set: the best episodes by return, then the first transitions, in units of rewards.

    top_percent: share of the episodes to keep, at least one; max_transitions: whole episodes from the start, the
    last one cut where the cap falls and marked truncated there; reward_scale and reward_shift: see `RewardUnit`.
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
            episode_returns=episode_returns(packed, kept_lengths, data.spec),
            fingerprint=f"{info.fingerprint}/{top_percent}/{max_transitions}",
        )
    chosen = Transitions(packed, torch.as_tensor(kept_lengths), data.spec, info)
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
    return Transitions(packed, data.lengths, data.spec, info)


def episode_returns(packed: Tensor, lengths: NDArray[np.int64], spec: Spec) -> NDArray[np.float64]:
    """The sum of rewards of each episode of packed rows."""
    # The extra row of each episode holds reward 0, so it may be summed along.
    starts = (lengths + 1).cumsum() - (lengths + 1)
    return np.add.reduceat(Schema(spec, STORED).read(packed, "reward").double().numpy(), starts)
