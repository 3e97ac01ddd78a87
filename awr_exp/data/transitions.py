"""A whole data set as flat tensors on the training device."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.types import Batch, Spec, Value

DEVICE_SHARE = 0.8
"""Share of a GPU's free memory that a data set may take; a larger one stays on the host and streams."""


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set beside its tensors.

    episode_returns: undiscounted, in the data's own units, whatever reward_scale is; fingerprint: changes when the
    content does; env_spec, eval_env_spec: the environments that it comes from and that it is to be evaluated in, as
    `awr_exp.envs.source.EnvSource` or gymnasium's EnvSpec, or None; ref_min_score, ref_max_score: returns of a random
    and an expert policy, or None; observation_space: gymnasium's, as the data set says, or None.
    """

    id: str
    episode_returns: NDArray[np.float64]
    transitions: int
    fingerprint: str
    reward_scale: float = 1.0
    env_spec: Any = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    eval_env_spec: Any = None
    observation_space: Any = None

    @property
    def episodes(self) -> int:
        return len(self.episode_returns)

    @property
    def return_mean(self) -> float:
        return float(self.episode_returns.mean())

    @property
    def return_std(self) -> float:
        return float(self.episode_returns.std())

    def normalized_score(self, episode_return: float) -> float | None:
        """0 for a random and 1 for an expert policy (Fu et al. 2020), None without reference scores."""
        low, high = self.ref_min_score, self.ref_max_score
        if low is None or high is None or high <= low:
            return None
        return (episode_return - low) / (high - low)


class Transitions:
    """N transitions of E episodes, laid end to end in order of time.

    packed: [M, W] float32 with M = N + E, columns obs | action | reward | terminated | truncated. Each episode has
    one more row, its final observation, so the next observation of a row is the row below it and is stored once.
    rows: [N] int64, the packed row of each transition; last: [N] bool, the last transition of each episode. Its
    `truncated` is set wherever it did not terminate, be it by a time limit or because the data were cut there.
    """

    def __init__(self, packed: Tensor, lengths: Tensor, spec: Spec, info: DataInfo) -> None:
        self.packed, self.spec, self.info = packed, spec, info
        self.device = packed.device
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
        """Transitions that there is room for."""
        return len(self)

    def observations(self) -> Tensor:
        """[M, obs_dim], final observations included."""
        return self.packed[:, : self.spec.obs_dim]

    def values(self, value: Value, chunk: int) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') [K, N] of all transitions; an observation that two share passes once."""
        of_rows = torch.cat([value(obs) for obs in self.observations().split(chunk)], 1)
        return of_rows[:, self.rows], of_rows[:, self.rows + 1]

    def _column(self, index: int) -> Tensor:
        return self.packed[:, index].index_select(0, self.rows.to(self.packed.device)).to(self.device)

    @property
    def reward(self) -> Tensor:
        """[N], scaled."""
        return self._column(-3)

    @property
    def terminated(self) -> Tensor:
        """[N] bool."""
        return self._column(-2).bool()

    @property
    def truncated(self) -> Tensor:
        """[N] bool."""
        return self._column(-1).bool()

    def sample(self, indices: Tensor, target: Tensor | None = None) -> Batch:
        """The transitions at indices [K, B], each from 0 to N - 1, with their targets from target [K, N]."""
        shape, obs_dim, action_dim = indices.shape, self.spec.obs_dim, self.spec.action_dim
        at = self.rows.index_select(0, indices.flatten()).to(self.packed.device)
        row = self.packed.index_select(0, at).to(self.device, non_blocking=True).view(*shape, -1)
        next_obs = self.observations().index_select(0, at + 1).to(self.device, non_blocking=True)
        action = row[..., obs_dim : obs_dim + action_dim]
        return Batch(
            obs=row[..., :obs_dim],
            action=action.squeeze(-1).long() if self.spec.discrete else action,
            reward=row[..., -3],
            next_obs=next_obs.view(*shape, -1),
            terminated=row[..., -2].bool(),
            truncated=row[..., -1].bool(),
            target=None if target is None else target.gather(1, indices),
        )

    @property
    def offsets(self) -> dict[str, int]:
        """Numbers of a row of `table`, and where in it, or behind it, the other parts of a transition are."""
        width = self.packed.shape[1]
        places = {"next_obs": width, "action": self.spec.obs_dim, "reward": width - 3, "terminated": width - 2}
        return {"width": width, **places}

    def table(self, member: int) -> Tensor:
        """The rows of the transitions, which are those of every member."""
        return self.packed

    def places(self, indices: Tensor) -> Tensor:
        """The row of `table` of each transition."""
        return self.rows[indices]

    def obs_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [obs_dim] of the observations, final ones included."""
        obs = self.observations()
        mean = torch.zeros(obs.shape[1], dtype=torch.float64, device=obs.device)
        square = torch.zeros_like(mean)
        # In pieces, in float64: a mapped data set need not fit the memory, and 1M float32 sums would drift.
        for piece in obs.split(262_144):
            mean += piece.double().sum(0)
        mean /= len(obs)
        for piece in obs.split(262_144):
            square += (piece.double() - mean).square().sum(0)
        std = (square / len(obs)).sqrt()
        # A constant entry carries nothing: dividing by its rounding noise would turn it into the loudest one.
        std = torch.where(std < 1e-6 * (1 + mean.abs()), 1.0, std)
        return mean.float().to(self.device), std.float().to(self.device)


def select(
    packed: Tensor,
    lengths: Tensor,
    spec: Spec,
    info: DataInfo,
    top_percent: float | None,
    reward_scale: float,
    max_transitions: int | None,
) -> Transitions:
    """The chosen part of a data set: the best episodes by return, then the first transitions, rewards scaled.

    top_percent: share of the episodes to keep, at least one; max_transitions: whole episodes from the start, the
    last one cut where the cap falls and marked truncated there.
    """
    keep = np.arange(len(lengths))
    if top_percent is not None:
        count = max(1, round(len(keep) * top_percent / 100))
        best = np.argsort(-info.episode_returns, kind="stable")[:count]
        keep = np.sort(best)
    kept_lengths = lengths.numpy()[keep]
    if max_transitions is not None and kept_lengths.sum() > max_transitions:
        before = kept_lengths.cumsum() - kept_lengths
        inside = before < max_transitions
        keep, before = keep[inside], before[inside]
        kept_lengths = np.minimum(kept_lengths[inside], max_transitions - before)
    if len(keep) < len(lengths) or (kept_lengths != lengths.numpy()[keep]).any():
        starts = (lengths + 1).cumsum(0).numpy() - (lengths.numpy() + 1)
        packed = torch.cat([packed[s : s + n + 1] for s, n in zip(starts[keep], kept_lengths, strict=True)])
        ends = torch.as_tensor((kept_lengths + 1).cumsum() - 2)
        packed[ends, -1] = 1 - packed[ends, -2]
        packed[ends + 1, spec.obs_dim :] = 0
        info = replace(
            info,
            episode_returns=_returns(packed, kept_lengths),
            transitions=int(kept_lengths.sum()),
            fingerprint=f"{info.fingerprint}/{top_percent}/{max_transitions}",
        )
    if reward_scale != 1:
        packed = packed.clone()
        packed[:, -3] *= reward_scale
        info = replace(info, reward_scale=reward_scale, fingerprint=f"{info.fingerprint}*{reward_scale}")
    return Transitions(packed, torch.as_tensor(kept_lengths), spec, info)


def _returns(packed: Tensor, lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    # The extra row of each episode holds reward 0, so it may be summed along.
    starts = (lengths + 1).cumsum() - (lengths + 1)
    return np.add.reduceat(packed[:, -3].double().numpy(), starts)
