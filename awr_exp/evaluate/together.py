"""Trained policies that play together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from awr_exp.agents.best_of import drawn
from awr_exp.math.observations import normalize
from awr_exp.policy import TrainedPolicy


class Together:
    """Acts for K policies of one shape as an agent of K members does: by their modes, or by the best of samples.

    generators: what each draws with; sample: whether actions are drawn from the distributions instead.
    """

    def __init__(self, policies: Sequence[TrainedPolicy], generators: Sequence[torch.Generator], sample: bool) -> None:
        first = policies[0]
        self.spec, self.policy, self.judge = first.spec, first.policy, first.judge
        self.generators, self.sample = generators, sample
        self.theta = torch.cat([one.theta for one in policies])
        self.normalizer = [torch.cat(parts) for parts in zip(*(one.normalizer for one in policies), strict=True)]
        self.q_theta = torch.cat([one.judge.theta for one in policies if one.judge]) if self.judge else None
        self.device, self.dtype = self.theta.device, self.theta.dtype

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """Actions [K, B, ...] for obs [K, B, obs_dim] in the data's units."""
        obs = normalize(obs, *(each.unsqueeze(1) for each in self.normalizer))
        rows, width = obs.shape[1], self.policy.head.noise
        if self.sample:
            return self.policy.act(self.theta, obs, drawn(self.generators, 1, rows, width)[:, 0].to(obs))
        if self.judge is None or self.q_theta is None:
            return self.policy.act(self.theta, obs)
        noise = drawn(self.generators, self.judge.count, rows, width).to(obs)
        return self.judge.q.best(self.q_theta, obs, self.policy.samples(self.theta, obs, noise))
