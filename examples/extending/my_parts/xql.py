"""An agent: extreme Q-learning (Garg et al. 2023, arXiv 2301.02328), which models errors of Q as Gumbel ones."""

from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.q import QAgent
from awr_exp.agents.weighted import WeightedAgent
from awr_exp.math.members import Hyper
from awr_exp.types import Batch, LossAndMetrics, Metrics


class XQL(QAgent, WeightedAgent):
    """V by Gumbel regression on the slow Q, Q toward r + gamma V(s'), and the weighted actor on Q - V.

    scale: of the Gumbel distribution: V is the mean of Q over the data's actions where it is large, and their largest Q
    where it is small. noise: deviation of what is added to the targets of V. A sweep over both trains as one model.
    """

    def __init__(self, *args: Any, scale: Hyper = 1.0, noise: Hyper = 0.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scale, self.deviation = self.hyper(scale), self.hyper(noise)
        self.critic = self.net("critic", self.make_network(inputs=self.spec.obs_dim, outputs=1))
        self.noise_sizes["target"] = 1

    def value(self, obs: Tensor, theta: Tensor) -> Tensor:
        """V(s), [K, B]."""
        return self.critic.module(theta, obs).squeeze(-1)

    def critic_update(self, batch: Batch) -> Metrics:
        drawn = self.deviation * self.noise(batch, "target").squeeze(-1)
        target = self.slow_q(batch.obs, batch.action) + drawn

        def loss(theta: Tensor) -> LossAndMetrics:
            # Equation 10, whose exponent is cut off, or one large error would be all that counts.
            error = ((target - self.value(batch.obs, theta)) / self.scale).clamp(max=5)
            return (torch.exp(error) - error - 1).mean(-1), {}

        value_loss, _ = self.descend(self.critic, loss, self.critic_lr)
        return {"value_loss": value_loss} | self.q_update(batch, self.value(batch.next_obs, self.critic.theta))

    def advantage(self, batch: Batch) -> Tensor:
        return self.slow_q(batch.obs, batch.action) - self.value(batch.obs, self.critic.theta)
