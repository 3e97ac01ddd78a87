"""Advantage-weighted actor-critic (Nair et al. 2020, arXiv 2006.09359) for K members at once."""

from typing import Any

from torch import Tensor

from awr_exp.agents.q import QAgent
from awr_exp.agents.weighted import WeightedAgent
from awr_exp.ranges import Count
from awr_exp.types import Batch, Metrics


class AWAC(QAgent, WeightedAgent):
    """A = Q(s, a) - V(s), where V is the mean Q of actions that the policy draws, and AWR's actor.

    Q minimises (r + gamma Q_slow(s', a') - Q(s, a))^2 with a' of pi (eq. 5), and pi maximises exp(A / beta) log pi(a|s)
    (eq. 13).
    samples: the number of actions that V is made of. options: other arguments of QAgent and WeightedAgent.
    """

    def __init__(self, *args: Any, samples: Count = 1, **options: Any) -> None:
        super().__init__(*args, **options)
        self.samples, width = samples, self.policy.head.noise
        self.noise_sizes |= {"next": width, "here": samples * width}

    def drawn(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Actions of the policy, [K, n, B, ...], by noise [K, n, B, head.noise]."""
        return self.inside(self.policy.samples(self.actor.theta, obs, noise))

    def critic_update(self, batch: Batch) -> Metrics:
        """One step of Q toward r + gamma Q(s', a'), where the policy draws a' (eq. 5)."""
        (action,) = self.drawn(batch.next_obs, self.several(batch, "next", 1)).unbind(1)
        return self.q_update(batch, self.slow_q(batch.next_obs, action))

    def state_value(self, q: Tensor) -> Tensor:
        """V(s), [K, B], from Q of the drawn actions, [K, n, B]."""
        return q.mean(1)

    def advantage(self, batch: Batch) -> Tensor:
        actions = self.drawn(batch.obs, self.several(batch, "here", self.samples))
        q = self.q.module.of_each(self.q.theta, batch.obs, actions).amin(1)
        return self.smallest_q(batch.obs, batch.action) - self.state_value(q)
