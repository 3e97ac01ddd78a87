"""Value targets from rewards and values; the advantage is the target minus V(s).

Every function is a pure function of tensors with time on the last axis and any leading axes, over episodes
laid end to end. `last` marks the last row of each episode. `discount` is gamma where the episode goes on or was
truncated and 0 where it terminated, so a truncated episode bootstraps from its final observation without a
special case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from awr_exp.math.members import per_member
from awr_exp.ranges import Count, PerMember, Unit, checked


def reverse_scan(x: Tensor, decay: Tensor, longest: int | None = None) -> Tensor:
    """y[t] = x[t] + decay[t] y[t+1] along the last axis, in log2(longest) vector steps (Hillis and Steele 1986).

    `longest` bounds the number of consecutive rows over which `decay` stays non-zero; the whole axis by default.
    """
    step, rows = 1, x.shape[-1]
    while step < min(longest or rows, rows):
        x, decay = x + decay * _shift(x, step), decay * _shift(decay, step)
        step *= 2
    return x


def lambda_return(
    reward: Tensor,
    discount: Tensor,
    next_value: Tensor,
    last: Tensor,
    lam: Tensor | float,
    longest: int | None = None,
) -> Tensor:
    """TD(lambda) target (Sutton and Barto 2018, eq. 12.20), for all arguments of shape [..., T].

    G_t = r_t + discount_t [(1 - l_t) V(s_{t+1}) + l_t G_{t+1}], where l_t is lambda and 0 on the last row of
    an episode. lambda 0 is the one-step target, lambda 1 Monte-Carlo.
    """
    mix = lam * (~last).to(reward.dtype)
    mix, discount = torch.broadcast_tensors(mix, discount)
    return reverse_scan(reward + discount * (1 - mix) * next_value, discount * mix, longest)


def n_step_return(reward: Tensor, discount: Tensor, next_value: Tensor, last: Tensor, n: int) -> Tensor:
    """The next n rewards, then V (Sutton and Barto 2018, eq. 7.1), for all arguments of shape [..., T].

    An episode with fewer than n rows left is summed to its end. Takes O(log n) vector steps.
    """
    # The affine map G_t = offset_t + gain_t G_{t+length}; where the episode ends sooner, the bootstrap is already
    # in the offset and the gain is 0. Composing a map with itself doubles its length.
    go_on = (~last).to(reward.dtype)
    target = reward + discount * next_value
    offset, gain = reward + discount * (1 - go_on) * next_value, discount * go_on
    length, rest = 1, n - 1
    while rest:
        if rest & 1:
            target = offset + gain * _shift(target, length)
        offset, gain = offset + gain * _shift(offset, length), gain * _shift(gain, length)
        length, rest = 2 * length, rest >> 1
    return target


def episode_numbers(last: Tensor) -> Tensor:
    """The number of the episode that each row is in, [N] of int64, from `last` [N]."""
    return last.cumsum(0) - last.long()


def episode_returns(reward: Tensor, last: Tensor) -> Tensor:
    """The undiscounted return of each episode, [E] in float64, from rewards and `last` [N]."""
    numbers = episode_numbers(last)
    return reward.new_zeros(int(numbers[-1]) + 1, dtype=torch.float64).index_add_(0, numbers, reward.double())


def _shift(x: Tensor, rows: int) -> Tensor:
    """x[t + rows], and 0 beyond the end."""
    rows = min(rows, x.shape[-1])
    return F.pad(x[..., rows:], (0, rows))


@checked("advantage")
@dataclass(frozen=True)
class LambdaReturn:
    """`lambda_return` as a part of an agent."""

    lam: PerMember[Unit]

    @property
    def one_step(self) -> bool:
        """Whether a transition alone gives the target, so that no episode has to be walked."""
        return self.lam == 0

    def shard(self, members: slice) -> "LambdaReturn":
        return LambdaReturn(self.lam[members] if isinstance(self.lam, Sequence) else self.lam)

    def __call__(
        self, reward: Tensor, discount: Tensor, next_value: Tensor, last: Tensor, longest: int | None = None
    ) -> Tensor:
        lam = per_member(self.lam, discount.shape[0], discount)
        return lambda_return(reward, discount, next_value, last, lam, longest)


@checked("advantage")
@dataclass(frozen=True)
class NStep:
    """`n_step_return` as a part of an agent."""

    n: Count

    @property
    def one_step(self) -> bool:
        return self.n == 1

    def __call__(
        self, reward: Tensor, discount: Tensor, next_value: Tensor, last: Tensor, longest: int | None = None
    ) -> Tensor:
        return n_step_return(reward, discount, next_value, last, self.n if longest is None else min(self.n, longest))


Estimator = LambdaReturn | NStep
