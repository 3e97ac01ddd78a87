"""Advantage-weighted regression (Peng et al. 2019, algorithm 1) for K members at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.value import ValueAgent
from awr_exp.math import weights
from awr_exp.math.advantages import Estimator
from awr_exp.math.members import Hyper, Limit, Switch
from awr_exp.math.weights import Weighting
from awr_exp.networks.policy import MakeHead, MakeNetwork
from awr_exp.types import Batch, Metrics, Spec


class AWR(ValueAgent):
    """V by regression on the estimator's target, then pi by regression weighted with w(A).

    weighting: from A, beta and max_weight to w; beta: temperature, divides the advantage; max_weight: largest weight;
    value_iters, actor_iters: gradient steps of the critic and the actor on each batch;
    standardize_advantages: give A mean 0 and standard deviation 1 in each batch before the weighting.
    """

    def __init__(
        self,
        spec: Spec,
        network: MakeNetwork,
        head: MakeHead,
        advantage: Estimator,
        weighting: Weighting,
        seeds: Sequence[int],
        beta: Hyper = 0.3,
        max_weight: Hyper = 20.0,
        gamma: Hyper = 0.99,
        value_iters: int = 5,
        actor_iters: int = 1,
        actor_lr: Hyper = 3e-4,
        critic_lr: Hyper = 3e-4,
        standardize_advantages: Switch = False,
        max_grad_norm: Limit = None,
        **options: Any,
    ) -> None:
        super().__init__(spec, network, head, advantage, seeds, gamma, actor_lr, critic_lr, max_grad_norm, **options)
        self.weighting = weighting
        self.value_iters, self.actor_iters = value_iters, actor_iters
        self.beta, self.max_weight = self.hyper(beta), self.hyper(max_weight)
        self.standardize = self.hyper(standardize_advantages).bool()

    def surplus(self, target: Tensor, value: Tensor) -> Tensor:
        """A, [K, N], from targets and V(s)."""
        return target - value

    def weights(self, advantage: Tensor) -> Tensor:
        """w(A), [K, N], of advantages that are standardised among themselves where that is asked for."""
        scaled = torch.where(self.standardize, weights.standardize(advantage), advantage)
        return self.weighting(scaled, self.beta, self.max_weight)

    @torch.no_grad()
    def update(self, batch: Batch) -> Metrics:
        obs, next_obs = self.normalize(batch.obs), self.normalize(batch.next_obs)

        for _ in range(self.value_iters):
            value_loss, explained = self.critic_step(obs, self.target(batch, next_obs))

        value = self.value(self.critic.theta, obs)
        advantage = self.surplus(self.target(batch, next_obs), value)
        weight = self.weights(advantage)

        for _ in range(self.actor_iters):
            actor_metrics = self.actor_step(obs, batch.action, weight)

        return {
            "value_loss": value_loss,
            "explained_variance": explained,
            **self.health(value, advantage, weight),
            **actor_metrics,
        }

    def health(self, value: Tensor, advantage: Tensor, weight: Tensor) -> Metrics:
        """What there is to report of V, A and w, [K, N] each."""
        return {
            "mean_value": value.mean(-1),
            "mean_advantage": advantage.mean(-1),
            "std_advantage": advantage.std(-1, correction=0),
            **weights.health(weight, self.max_weight),
        }

    @torch.no_grad()
    def update_critic(self, batch: Batch) -> Metrics:
        """One step of V toward the batch's targets."""
        assert batch.target is not None
        value_loss, explained = self.critic_step(self.normalize(batch.obs), batch.target)
        return {"value_loss": value_loss, "explained_variance": explained}

    @torch.no_grad()
    def update_actor(self, batch: Batch) -> Metrics:
        """One step of pi with the batch's weights."""
        assert batch.weight is not None
        return self.actor_step(self.normalize(batch.obs), batch.action, batch.weight)
