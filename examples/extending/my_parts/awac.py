"""An agent: advantage-weighted actor-critic (Nair et al. 2020, arXiv 2006.09359), with two Q."""

from typing import Any

from torch import Tensor

from awr_exp.agents.weighted import WeightedAgent
from awr_exp.math.members import Hyper
from awr_exp.networks.actions import Q
from awr_exp.types import Batch, LossAndMetrics, Metrics


class AWAC(WeightedAgent):
    """A = Q(s, a) - Q(s, a'), where the policy draws a' by the batch's noise.

    target_rate: share of the way by which the slow Q follows Q in each step. A sweep over it trains as one model.
    """

    def __init__(self, *args: Any, target_rate: Hyper = 0.005, **options: Any) -> None:
        super().__init__(*args, **options)
        self.target_rate = self.hyper(target_rate)
        with self.device:
            self.q = self.net("q", Q(self.spec, self.make_network), averaged=True)
        self.noise_sizes |= {"next": self.policy.head.noise, "baseline": self.policy.head.noise}

    def value(self, obs: Tensor, action: Tensor, theta: Tensor) -> Tensor:
        """The smaller Q(s, a), [K, B]."""
        return self.q.module(theta, obs, action).amin(1)

    def drawn_value(self, obs: Tensor, noise: Tensor, theta: Tensor) -> Tensor:
        """Q of an action of the policy, [K, B]."""
        return self.value(obs, self.policy.act(self.actor.theta, obs, noise), theta)

    def critic_update(self, batch: Batch) -> Metrics:
        slow = self.q.averaged().theta
        following = self.drawn_value(batch.next_obs, self.noise(batch, "next"), slow)
        target = batch.reward + self.gamma * ~batch.terminated * following

        def loss(theta: Tensor) -> LossAndMetrics:
            qs = self.q.module(theta, batch.obs, batch.action)
            return (qs - target.unsqueeze(1)).square().mean(-1).sum(-1), {"mean_q": qs.detach().mean((1, 2))}

        q_loss, report = self.descend(self.q, loss, self.critic_lr)
        self.q.move_average(self.target_rate)
        return {"q_loss": q_loss, **report}

    def advantage(self, batch: Batch) -> Tensor:
        drawn = self.drawn_value(batch.obs, self.noise(batch, "baseline"), self.q.theta)
        return self.value(batch.obs, batch.action, self.q.theta) - drawn
