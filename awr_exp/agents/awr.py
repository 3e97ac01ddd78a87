"""Advantage-weighted regression (Peng et al. 2019, algorithm 1) for K members at once."""

from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.value import ValueAgent
from awr_exp.agents.weighted import WeightedAgent
from awr_exp.math.advantages import Estimator
from awr_exp.ranges import Count
from awr_exp.types import Batch, Columns, Episodes, Metrics


class AWR(ValueAgent, WeightedAgent):
    """V by regression on the estimator's target, then pi by regression weighted with w(target - V(s)).

    advantage: the estimator of the target; value_iters: steps of the critic on each batch. options: other arguments of
    ValueAgent and WeightedAgent.
    """

    judged_by = frozenset({"target", "value"})

    def __init__(self, *args: Any, advantage: Estimator, value_iters: Count = 5, **options: Any) -> None:
        super().__init__(*args, value_iters=value_iters, **options)
        self.estimator, self.whole_episodes = advantage, not advantage.one_step

    @property
    def lags(self) -> bool:
        return self.value_iters == 1

    def target(self, batch: Batch) -> Tensor:
        """[K, B], no gradient: from `targets`, or else r + gamma (1 - terminated) V(s')."""
        if batch.target is not None:
            return batch.target
        if self.whole_episodes:
            raise ValueError("this estimator walks whole episodes: pass Batch.target from agent.targets")
        return batch.reward + self.gamma * ~batch.terminated * self.value(batch.next_obs)

    def critic_update(self, batch: Batch) -> Metrics:
        """One semi-gradient step of V on mean((target - V(s))^2) (eq. 12)."""
        return self.value_update(batch, self.target(batch))

    def advantage(self, batch: Batch) -> Tensor:
        """target - V(s), by the V(s) that came with the targets where there is one."""
        return self.target(batch) - (self.value(batch.obs) if batch.value is None else batch.value)

    @torch.no_grad()
    def targets(self, episodes: Episodes) -> Columns:
        """The estimator's targets with today's critic, and V(s)."""

        def value(obs: Tensor) -> Tensor:
            return self.value(self.normalize(obs.to(self.device, self.dtype)))

        return self.returns(episodes, value, self.estimator)
