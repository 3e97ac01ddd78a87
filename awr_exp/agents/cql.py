"""Conservative Q-learning (Kumar et al. 2020, arXiv 2006.04779) for K members at once."""

import math
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.sac import SAC
from awr_exp.ranges import Count, NotNegative, PerMember
from awr_exp.types import Batch, LossAndMetrics


class CQL(SAC):
    """SAC whose Q is pressed down on all actions, most where it is large, and up on the data's.

    Q minimises alpha (log sum_a exp Q(s, a) - Q(s, a of the data)) and the squared error of SAC (eq. 4).
    alpha: what that pressure counts beside the squared error; samples: actions of each kind (by chance, and of the
    policy in s and in s') that log sum exp Q(s, .) is estimated with, where actions are continuous. options: other
    arguments of SAC.
    """

    imitates = False

    def __init__(self, *args: Any, alpha: PerMember[NotNegative] = 5.0, samples: Count = 10, **options: Any) -> None:
        super().__init__(*args, **options)
        self.alpha, self.samples = self.hyper(alpha).squeeze(1), samples
        if not self.spec.discrete:
            width = samples * self.policy.head.noise
            self.noise_sizes |= {"chance": samples * self.spec.action_dim, "here": width, "there": width}

    def q_loss(self, theta: Tensor, batch: Batch, target: Tensor) -> LossAndMetrics:
        """The squared errors, and alpha times the mean of log sum exp Q(s, .) - Q(s, a), summed over all Q (eq. 4)."""
        qs = self.q.module(theta, batch.obs, batch.action)
        error, report = self.q_error(qs, target)
        pressed = (self.log_sum_exp(theta, batch) - qs).mean(-1).sum(-1)
        return error + self.alpha * pressed, report | {"conservative_gap": pressed}

    def log_sum_exp(self, theta: Tensor, batch: Batch) -> Tensor:
        """log sum exp Q(s, .) [K, size, B] over all discrete actions, or estimated by importance sampling (app. F)."""
        if self.spec.discrete:
            actions, _ = self.policy.weigh(self.actor.theta, batch.obs, self.q.module.as_inputs.every())
            return self.calibrated(self.q.module.of_each(theta, batch.obs, actions), batch).logsumexp(2)
        chance = self.q.module.as_inputs.chance(self.several(batch, "chance", self.samples))
        here = self.policy.draws(self.actor.theta, batch.obs, self.several(batch, "here", self.samples))
        there = self.policy.draws(self.actor.theta, batch.next_obs, self.several(batch, "there", self.samples))
        actions, density = (torch.cat(each, 1) for each in zip(chance, here, there, strict=True))
        q = self.q.module.of_each(theta, batch.obs, self.inside(actions))
        by_chance, of_policy = q.split([self.samples, 2 * self.samples], 2)
        q = torch.cat([by_chance, self.calibrated(of_policy, batch)], 2)
        return (q - density.unsqueeze(1)).logsumexp(2) - math.log(actions.shape[1])

    def calibrated(self, q: Tensor, batch: Batch) -> Tensor:
        """Q of actions of the policy, [K, size, n, B], as the pressure sees it."""
        return q
