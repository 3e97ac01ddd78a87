"""Implicit Q-learning (Kostrikov et al. 2022, arXiv 2110.06169) for K members at once."""

from typing import Any

from torch import Tensor

from awr_exp.agents.weighted import WeightedAgent
from awr_exp.math import losses
from awr_exp.math.members import Hyper
from awr_exp.networks.actions import Q
from awr_exp.types import Batch, LossAndMetrics, Metrics


class IQL(WeightedAgent):
    """V by expectile regression on a slow Q, twin Q toward r + gamma V(s'), and AWR's actor on Q - V.

    expectile: of V, from 0.5 (the mean of the data's actions) to below 1 (the best of them); target_rate: share of the
    way by which the slow Q follows Q in each step. options: other arguments of WeightedAgent.
    """

    def __init__(self, *args: Any, expectile: Hyper = 0.7, target_rate: Hyper = 0.005, **options: Any) -> None:
        super().__init__(*args, **options)
        self.expectile, self.target_rate = self.hyper(expectile), self.hyper(target_rate)
        self.critic = self.net("critic", self.make_network(inputs=self.spec.obs_dim, outputs=1))
        with self.device:
            self.q = self.net("q", Q(self.spec, self.make_network), averaged=True)

    def value(self, obs: Tensor, theta: Tensor) -> Tensor:
        """V(s), [K, B]."""
        return self.critic.module(theta, obs).squeeze(-1)

    def slow_q(self, batch: Batch) -> Tensor:
        """The smaller slow Q(s, a), [K, B]."""
        return self.q.module(self.q.averaged().theta, batch.obs, batch.action).amin(1)

    def critic_update(self, batch: Batch) -> Metrics:
        """A step of V (eq. 5), one of Q (eq. 6), and the slow Q follows."""
        slow = self.slow_q(batch)

        def loss_v(theta: Tensor) -> LossAndMetrics:
            value = self.value(batch.obs, theta)
            return losses.expectile(slow - value, self.expectile), {"mean_value": value.detach().mean(-1)}

        value_loss, report_v = self.descend(self.critic, loss_v, self.critic_lr)
        target = batch.reward + self.gamma * ~batch.terminated * self.value(batch.next_obs, self.critic.theta)

        def loss_q(theta: Tensor) -> LossAndMetrics:
            qs = self.q.module(theta, batch.obs, batch.action)
            report = {"explained_variance": losses.explained_variance(qs.detach().mean(1), target)}
            return (qs - target.unsqueeze(1)).square().mean(-1).sum(-1), report

        q_loss, report_q = self.descend(self.q, loss_q, self.critic_lr)
        self.q.move_average(self.target_rate)
        return {"value_loss": value_loss, "q_loss": q_loss, **report_v, **report_q}

    def advantage(self, batch: Batch) -> Tensor:
        return self.slow_q(batch) - self.value(batch.obs, self.critic.theta)
