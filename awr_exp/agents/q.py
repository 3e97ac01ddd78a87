"""What agents share whose critic is Q(s, a)."""

from typing import Any

from torch import Tensor

from awr_exp.agents.critic import CriticAgent
from awr_exp.math import losses
from awr_exp.math.optimizers import Net
from awr_exp.networks.actions import Q
from awr_exp.ranges import Count, PerMember, Unit
from awr_exp.types import Batch, LossAndMetrics, Metrics


class QAgent(CriticAgent):
    """An agent with an ensemble of Q, of which the smallest counts (Fujimoto et al. 2018), and a slow copy of it.

    ensemble: the number of Q; target_rate: share of the way by which the slow copy follows in each step. options: other
    arguments of CriticAgent.
    """

    def __init__(self, *args: Any, ensemble: Count = 2, target_rate: PerMember[Unit] = 0.005, **options: Any) -> None:
        super().__init__(*args, **options)
        self.target_rate = self.hyper(target_rate)
        with self.device:
            self.q = self.net("q", Q(self.spec, self.make_critic, ensemble), averaged=True)

    @property
    def judge(self) -> Net:
        return self.q

    def several(self, batch: Batch, name: str, count: int) -> Tensor:
        """The noise of so many actions in each state, [K, n, B, ...], from that under a name, [K, B, n * ...]."""
        return self.noise(batch, name).unflatten(-1, (count, -1)).transpose(1, 2)

    def inside(self, action: Tensor) -> Tensor:
        """Actions as the environment will take them, which is what Q is asked about."""
        return self.q.module.as_inputs.inside(action)

    def smallest_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest Q(s, a), [K, B], of normalised obs."""
        return self.q.module(self.q.theta, obs, action).amin(1)

    def slow_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest slow Q(s, a), [K, B], of normalised obs."""
        return self.q.module(self.q.averaged().theta, obs, action).amin(1)

    def q_update(self, batch: Batch, next_value: Tensor) -> Metrics:
        """One step of every Q toward r + gamma (1 - terminated) next_value [K, B]; then the slow copy follows."""
        target = batch.reward + self.gamma * ~batch.terminated * next_value

        def loss(theta: Tensor) -> LossAndMetrics:
            return self.q_loss(theta, batch, target)

        q_loss, report = self.descend(self.q, loss, self.critic_lr)
        self.q.move_average(self.target_rate)
        return {"q_loss": q_loss, **report}

    def q_loss(self, theta: Tensor, batch: Batch, target: Tensor) -> LossAndMetrics:
        """The squared errors of all Q, summed, [K]."""
        return self.q_error(self.q.module(theta, batch.obs, batch.action), target)

    def q_error(self, qs: Tensor, target: Tensor) -> LossAndMetrics:
        """The same from all Q, [K, size, B], and their target [K, B]."""
        seen = qs.detach().mean(1)
        report = {"mean_q": seen.mean(-1), "explained_variance": losses.explained_variance(seen, target)}
        return (qs - target.unsqueeze(1)).square().mean(-1).sum(-1), report
