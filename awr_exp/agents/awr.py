"""Advantage-weighted regression (Peng et al. 2019, algorithm 1) for K members at once."""

from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.weighted import WeightedAgent
from awr_exp.errors import UserError
from awr_exp.math import losses
from awr_exp.math.advantages import Estimator
from awr_exp.ranges import Count, PerMember, Positive
from awr_exp.types import Batch, Columns, Episodes, LossAndMetrics, Metrics


class AWR(WeightedAgent):
    """V by regression on the estimator's target, then pi by regression weighted with w(target - V(s)).

    advantage: the estimator of the target; normalize_values: the critic's network and loss are in units of
    1 / (1 - gamma), the largest return of rewards up to 1; critic_output_scale: output_scale of the critic's network,
    or None for that of the network; value_iters: steps of the critic on each batch. options: other arguments of
    WeightedAgent. Raises UserError if that unit is infinite.
    """

    judged_by = frozenset({"target", "value"})

    def __init__(
        self,
        *args: Any,
        advantage: Estimator,
        normalize_values: PerMember[bool] = False,
        critic_output_scale: Positive | None = None,
        value_iters: Count = 5,
        **options: Any,
    ) -> None:
        super().__init__(*args, value_iters=value_iters, **options)
        normalized = self.hyper(normalize_values).bool()
        if bool((normalized & (self.gamma == 1)).any()):
            raise UserError("agent.normalize_values divides by 1 - gamma: choose agent.gamma below 1")
        self.value_scale = torch.where(normalized, 1 / (1 - self.gamma), 1.0)
        self.estimator, self.whole_episodes = advantage, not advantage.one_step
        own = {} if critic_output_scale is None else {"output_scale": critic_output_scale}
        self.critic = self.net("critic", self.make_network(inputs=self.spec.obs_dim, outputs=1, **own))

    @property
    def lags(self) -> bool:
        return self.value_iters == 1

    def value(self, obs: Tensor, theta: Tensor | None = None) -> Tensor:
        """V(s), [K, B], of normalised obs [K, B, obs_dim], by the critic's parameters or other ones."""
        theta = self.critic.theta if theta is None else theta
        return self.critic.module(theta, obs).squeeze(-1) * self.value_scale

    def target(self, batch: Batch) -> Tensor:
        """[K, B], no gradient: from `targets`, or else r + gamma (1 - terminated) V(s')."""
        if batch.target is not None:
            return batch.target
        if self.whole_episodes:
            raise ValueError("this estimator walks whole episodes: pass Batch.target from agent.targets")
        return batch.reward + self.gamma * ~batch.terminated * self.value(batch.next_obs)

    def critic_update(self, batch: Batch) -> Metrics:
        """One semi-gradient step of V toward the target (eq. 12)."""
        target, unit = self.target(batch), self.value_scale.squeeze(1).square()

        def loss(theta: Tensor) -> LossAndMetrics:
            value = self.value(batch.obs, theta)
            seen = value.detach()
            report = {"explained_variance": losses.explained_variance(seen, target), "mean_value": seen.mean(-1)}
            return losses.mean_squared_error(value, target) / unit, report

        value_loss, report = self.descend(self.critic, loss, self.critic_lr)
        return {"value_loss": value_loss * unit, **report}

    def advantage(self, batch: Batch) -> Tensor:
        return self.target(batch) - (self.value(batch.obs) if batch.value is None else batch.value)

    @torch.no_grad()
    def targets(self, episodes: Episodes) -> Columns:
        """The estimator's targets with today's critic, and V(s)."""

        def value(obs: Tensor) -> Tensor:
            return self.value(self.normalize(obs.to(self.device, self.dtype)))

        return self.returns(episodes, value, self.estimator)
