"""Fitted Q evaluation (Le, Voloshin and Yue 2019, arXiv 1903.08738) of K policies that no longer change."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from awr_exp.agents.best_of import Evaluated
from awr_exp.agents.members import Members
from awr_exp.data.transitions import Transitions
from awr_exp.math import losses
from awr_exp.math.advantages import lambda_return
from awr_exp.math.blocks import side_by_side
from awr_exp.math.gradients import gradient
from awr_exp.math.members import Hyper
from awr_exp.math.normalizer import Normalizer
from awr_exp.math.optimizers import Optimizer, adam
from awr_exp.networks.actions import Q
from awr_exp.networks.mlp import MakeNetwork
from awr_exp.types import Batch, LossAndMetrics, Metrics, Spec

LEVEL_ROWS = 100_000
"""Rows of the data, evenly spread, by which the level of Q is solved in the end."""
NEWTON_STEPS = 20


@dataclass(frozen=True)
class Estimate:
    """Discounted returns from the first states of E episodes, in units of the rewards of the data.

    value: Q(s, pi(s)), [K, E]; recorded: of the data's actions, and of the policy from where an episode was cut on,
    [K, E]; error: the mean squared Bellman error, [K].
    """

    value: Tensor
    recorded: Tensor
    error: Tensor


class FittedQ(Members):
    """Q^pi by regression on r + gamma (1 - terminated) Q_slow(s', pi(s')), for K policies on the same data.

    Q(s, a) = u (f(s, a) + c), where u is the standard deviation of the data's discounted returns, f is a network, and
    the level c keeps the mean Bellman error of the slow Q at 0. What Q converges to is the same as without c, but a
    slow network alone takes some 1 / (target_rate (1 - gamma)) steps to find the level of Q. No Q counts for more than
    a return can be, from min(0, smallest reward) / (1 - gamma) to max(0, largest reward) / (1 - gamma), so that it
    cannot run away where gamma is close to 1.
    lr: learning rate of f; target_rate: share of the way by which the slow Q follows in each step.
    """

    noise_size = 0
    whole_episodes = False

    def __init__(
        self,
        spec: Spec,
        network: MakeNetwork,
        seeds: Sequence[int],
        gamma: Hyper,
        lr: Hyper = 3e-4,
        target_rate: Hyper = 0.05,
        optimizer: Optimizer = adam,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(seeds, device, dtype)
        self.optimizer = optimizer
        with self.device:
            self.q = self.net("q", Q(spec, network, size=1), averaged=True)
        self.normalizer = Normalizer(self.hyper(True), spec.obs_dim)
        # Of a step; from one chunk to the next there are several.
        self.gamma = self.hyper(gamma) ** spec.chunk
        self.lr, self.target_rate = self.hyper(lr), self.hyper(target_rate)
        self.unlimited, self.unit, self.level = self.hyper(torch.inf), self.hyper(1.0), self.hyper(0.0)

    @torch.no_grad()
    def begin(self, data: Transitions, policy: Evaluated) -> None:
        """Look up what the policies do in the states of the data, and what the data's own returns are."""

        def act(obs: Tensor) -> Tensor:
            obs = obs.to(self.device, self.dtype).expand(self.members, *obs.shape)
            return self.q.module.as_inputs.inside(policy.act(obs))

        action, self.next_action = data.values(act, self.chunk)
        self.action = action[:, first_rows(data)]
        reward, discount = data.reward.to(self.gamma), self.gamma * ~data.terminated
        returns = lambda_return(reward, discount, torch.zeros_like(reward), data.last, 1.0, data.longest)
        spread = returns.std(-1, keepdim=True, correction=0)
        self.unit = torch.where(spread > 0, spread, 1)
        self.level = returns.mean(-1, keepdim=True) / self.unit
        self.ends = (1 - discount).mean(-1, keepdim=True)
        self.lowest, self.highest = (
            end.expand(self.members, 1) / (1 - self.gamma) / self.unit
            for end in (reward.amin().clamp(max=0), reward.amax().clamp(min=0))
        )

    def f(self, theta: Tensor, obs: Tensor, action: Tensor) -> Tensor:
        """[K, B] for obs in the data's units."""
        return self.q.module(theta, self.normalizer(obs), action).squeeze(1)

    def sample(self, data: Transitions, rows: Tensor) -> Batch:
        """The transitions `rows` [K, B] as `update` takes them."""
        member = torch.arange(self.members, device=rows.device).unsqueeze(1)
        return replace(data.sample(rows), next_action=self.next_action[member, rows])

    @torch.no_grad()
    def update(self, batch: Batch) -> Metrics:
        """One step of f toward what the slow Q says of a batch whose next_action is what the policies do."""
        assert batch.next_action is not None
        reward, discount = batch.reward / self.unit, self.gamma * ~batch.terminated
        slow = self.q.averaged().theta
        now, after = self.f(slow, batch.obs, batch.action), self.f(slow, batch.next_obs, batch.next_action)
        self.level += self.target_rate * self.off(self.level, reward, discount, now, after)
        target = reward + discount * self.possible(after + self.level) - self.level

        def loss(theta: Tensor) -> LossAndMetrics:
            return losses.mean_squared_error(self.f(theta, batch.obs, batch.action), target), {}

        grad, value, _ = gradient(loss, self.q.theta)
        self.q.descend(grad, self.optimizer, self.lr, self.unlimited)
        self.q.move_average(self.target_rate)
        return {"loss": value * self.unit.squeeze(1).square()}

    def possible(self, value: Tensor) -> Tensor:
        """Values [K, B], in units of u, as far as returns can be."""
        return value.maximum(self.lowest).minimum(self.highest)

    def off(self, level: Tensor, reward: Tensor, discount: Tensor, now: Tensor, after: Tensor) -> Tensor:
        """How far the level [K, 1] is from where E[f + c] = E[r + discount (f' + c)], by Newton's method, [K, 1]."""
        value = after + level
        residual = reward + discount * self.possible(value) - now - level
        beyond = (value < self.lowest) | (value > self.highest)
        return residual.mean(-1, keepdim=True) / (self.ends + (discount * beyond).mean(-1, keepdim=True))

    def slow(self, obs: Tensor, action: Tensor) -> Tensor:
        """The slow f, [K, B], of any number of rows."""
        theta, parts = self.q.averaged().theta, zip(obs.split(self.chunk, 1), action.split(self.chunk, 1), strict=True)
        return side_by_side((self.f(theta, *part) for part in parts), obs.shape[1])

    @torch.no_grad()
    def estimate(self, data: Transitions) -> Estimate:
        """What the slow Q says, with its level solved on all data, or on LEVEL_ROWS of them."""
        some = torch.arange(len(data), device=self.device)[:: -(-len(data) // LEVEL_ROWS)]
        batch = data.sample(some.unsqueeze(0))
        taken = self.slow(batch.obs, batch.action.expand(self.members, *batch.action.shape[1:]))
        discount = self.gamma * ~batch.terminated
        reward, after = batch.reward / self.unit, self.slow(batch.next_obs, self.next_action[:, some])
        level = self.level
        for _ in range(NEWTON_STEPS):
            level = level + self.off(level, reward, discount, taken, after)
        error = (reward + discount * self.possible(after + level) - taken - level).square().mean(-1)

        first, last = first_rows(data), data.last.nonzero().squeeze(1)
        value = self.possible(self.slow(data.sample(first.unsqueeze(0)).obs, self.action) + level)
        beyond = torch.zeros(self.members, len(data), device=self.device, dtype=self.dtype)
        cut = self.slow(data.sample(last.unsqueeze(0)).next_obs, self.next_action[:, last])
        beyond[:, last] = self.possible(cut + level)
        reward, discount = data.reward.to(self.gamma) / self.unit, self.gamma * ~data.terminated
        recorded = lambda_return(reward, discount, beyond, data.last, 1.0, data.longest)[:, first]
        return Estimate(self.unit * value, self.unit * recorded, self.unit.squeeze(1).square() * error)


def first_rows(data: Transitions) -> Tensor:
    """The row in which each recorded episode begins, [E]."""
    return (data.lengths.cumsum(0) - data.lengths)[data.whole].to(data.device)
