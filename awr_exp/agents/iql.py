"""Implicit Q-learning (Kostrikov et al. 2022, arXiv 2110.06169) for K members at once."""

from typing import Any

from torch import Tensor

from awr_exp.agents.q import QAgent
from awr_exp.agents.weighted import WeightedAgent
from awr_exp.math import losses
from awr_exp.ranges import InsideUnit, PerMember
from awr_exp.types import Batch, LossAndMetrics, Metrics


class IQL(QAgent, WeightedAgent):
    """V by expectile regression on a slow Q, twin Q toward r + gamma V(s'), and AWR's actor on Q - V.

    V minimises |tau - 1(Q_slow < V)| (Q_slow - V)^2 (eq. 5), Q minimises (r + gamma V(s') - Q)^2 (eq. 6), and pi
    maximises min(exp((Q_slow - V) / beta), max_weight) log pi(a|s) (eq. 7).
    expectile: of V, from 0.5 (the mean of the data's actions) to below 1 (the best of them). options: other arguments
    of QAgent and WeightedAgent.
    """

    def __init__(self, *args: Any, expectile: PerMember[InsideUnit] = 0.7, **options: Any) -> None:
        super().__init__(*args, **options)
        self.expectile = self.hyper(expectile)
        self.critic = self.net("critic", self.make_critic(inputs=self.spec.obs_dim, outputs=1))

    def value(self, obs: Tensor, theta: Tensor) -> Tensor:
        """V(s), [K, B]."""
        return self.critic.module(theta, obs).squeeze(-1)

    def value_update(self, batch: Batch) -> Metrics:
        """One step of V toward an upper expectile of the slow Q (eq. 5)."""
        slow = self.slow_q(batch.obs, batch.action)

        def loss(theta: Tensor) -> LossAndMetrics:
            value = self.value(batch.obs, theta)
            return losses.expectile(slow - value, self.expectile), {"mean_value": value.detach().mean(-1)}

        value_loss, report = self.descend(self.critic, loss, self.critic_lr)
        return {"value_loss": value_loss, **report}

    def critic_update(self, batch: Batch) -> Metrics:
        """A step of V (eq. 5), then one of Q (eq. 6)."""
        report = self.value_update(batch)
        return report | self.q_update(batch, self.value(batch.next_obs, self.critic.theta))

    def advantage(self, batch: Batch) -> Tensor:
        return self.slow_q(batch.obs, batch.action) - self.value(batch.obs, self.critic.theta)
