"""What the layers hand to one another. K is the number of members, B the batch size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from awr_exp.spec import Spec as Spec

if TYPE_CHECKING:
    from torch import Tensor
else:
    # Workers that only step environments know tasks, too, and do without torch.
    Tensor = Any

Metrics = dict[str, Tensor]
"""Numbers to report by name, each a [K] tensor on the training device."""
LossAndMetrics = tuple[Tensor, Metrics]
"""The loss [K] and what there is to report beside it."""
Columns = dict[str, Tensor]
"""Fields of `Batch` for all transitions, [K, N] each."""


@dataclass(frozen=True)
class RewardUnit:
    """The rewards that training sees, scale * reward + shift, of rewards [...] in the units of their task."""

    scale: float = 1.0
    shift: float = 0.0

    def learnt(self, reward: Tensor) -> Tensor:
        """What training sees of them."""
        return reward * self.scale + self.shift

    def own(self, learnt: Tensor) -> Tensor:
        """They themselves, of what training sees."""
        return (learnt - self.shift) / self.scale

    def of(self, other: "RewardUnit") -> "RewardUnit":
        """What makes rewards in this unit of those in another: its `learnt` takes the latter."""
        if self == other:
            return RewardUnit()
        scale = self.scale / other.scale
        return RewardUnit(scale, self.shift - scale * other.shift)


OWN_UNIT = RewardUnit()
"""That of the task."""


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set beside its tensors.

    episode_returns: undiscounted, in the data's own units, whatever reward_unit is; fingerprint: changes when the
    content does; env_spec, eval_env_spec: the environments that it comes from and that it is to be evaluated in, as
    `awr_exp.envs.source.EnvSource` or gymnasium's EnvSpec, or None; history: observations that are seen at once;
    hindsight: copies of each episode with other goals, of which episode_returns says nothing;
    ref_min_score, ref_max_score: returns of a random and an expert policy, or None; observation_space: gymnasium's, as
    the data set says, or None; observation_columns, action_columns: what each entry is called, or none where nobody
    has named them.
    """

    id: str
    episode_returns: NDArray[np.float64]
    fingerprint: str
    reward_unit: RewardUnit = OWN_UNIT
    env_spec: Any = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    eval_env_spec: Any = None
    observation_space: Any = None
    history: int = 1
    hindsight: int = 0
    observation_columns: Sequence[str] = ()
    action_columns: Sequence[str] = ()

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


@dataclass(frozen=True)
class Batch:
    """Transitions of K members.

    obs, next_obs: [K, B, obs_dim], of uint8 where the whole observation is; action: [K, B, action_dim] or, discrete,
    [K, B] of int64; reward: [K, B]; terminated, truncated: [K, B] bool. `truncated` also marks the last row of an
    episode that was merely cut. `target` [K, B] is the value target from the last refresh, for estimators that need
    whole episodes; None for one-step ones. `value` [K, B] is V(s), where that is known already. `noise`
    [K, B, Agent.noise_size] are standard normal numbers for whatever an agent samples, drawn as the rows are; None
    where nothing is sampled. `next_action`, as `action`, is what was done in next_obs, for agents that read it; it
    means nothing where an episode ends.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    truncated: Tensor
    target: Tensor | None = None
    value: Tensor | None = None
    noise: Tensor | None = None
    next_action: Tensor | None = None

    @classmethod
    def of_columns(cls, **columns: Tensor) -> "Batch":
        """Transitions of which these fields [..., B] alone are known; the others, of the same shape, mean nothing."""
        blank = next(iter(columns.values()))
        others = {name: blank for name in ("obs", "action", "reward", "next_obs", "terminated", "truncated")}
        return cls(**(others | columns))


Value = Callable[[Tensor], Tensor]
"""V(s) [K, B] of observations [B, obs_dim] or [K, B, obs_dim] in the data's units."""


class Episodes(Protocol):
    """What is learnt from: N transitions in order of time, of everybody (a data set) or [K, N] of K members (a replay).

    reward: [N] or [K, N]; terminated, last: the same of bool, `last` on the last row of each episode; longest: the
    number of transitions of the longest episode.
    """

    @property
    def last(self) -> Tensor: ...

    @property
    def reward(self) -> Tensor: ...

    @property
    def terminated(self) -> Tensor: ...

    @property
    def longest(self) -> int: ...

    def __len__(self) -> int: ...

    def blocks(self, rows: int) -> Iterator["Episodes"]:
        """All of these in order, in parts of whole episodes with at most so many rows, or of a single episode."""

    def values(self, value: Value, chunk: int) -> tuple[Tensor, Tensor]:
        """V(s) and V(s') of each transition, [K, N] both, with at most `chunk` rows at once."""

    def sample(self, rows: Tensor, next_action: bool = False, **columns: Tensor | None) -> Batch:
        """The transitions `rows` [K, B], or [1, B] for all members alike, each from 0 to N - 1.

        next_action: whether the batch says what was done next, too; columns: other fields of the batch, [K, N] of all
        transitions, or None where there is no such field.
        """
