"""Advantage-weighted regression (Peng et al. 2019, algorithm 1) for K members at once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import VALUE_CHUNK, Agent, descend
from awr_exp.math import losses, weights
from awr_exp.math.adam import Parameters
from awr_exp.math.advantages import Estimator
from awr_exp.math.members import Hyper, Limit, Switch
from awr_exp.networks.policy import MakeHead, MakeNetwork
from awr_exp.types import Batch, Episodes, Metrics, Spec

Weighting = Callable[[Tensor, Tensor, Tensor], Tensor]


class AWR(Agent):
    """V by regression on the estimator's target, then pi by regression weighted with w(A).

    advantage: the estimator of the target, advantages being target - V(s); weighting: from A, beta and max_weight
    to w; beta: temperature, divides the advantage; max_weight: largest weight; gamma: discount;
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
        super().__init__(spec, network, head, seeds, actor_lr, max_grad_norm, **options)
        self.advantage, self.weighting = advantage, weighting
        self.value_iters, self.actor_iters = value_iters, actor_iters
        self.beta, self.max_weight = self.hyper(beta), self.hyper(max_weight)
        self.gamma, self.critic_lr = self.hyper(gamma), self.hyper(critic_lr)
        self.standardize = self.hyper(standardize_advantages).bool()
        self.value_network = network(inputs=spec.obs_dim, outputs=1)
        self.critic = self.parameters("critic", self.value_network.start)

    @property
    def networks(self) -> dict[str, Parameters]:
        return {"actor": self.actor, "critic": self.critic}

    def value(self, theta: Tensor, obs: Tensor) -> Tensor:
        """V(s), [K, B], of normalised obs [K, B, obs_dim]."""
        return self.value_network(theta, obs).squeeze(-1)

    @torch.no_grad()
    def targets(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Targets with today's critic, vectorised over all episodes, and V(s): [K, N] both."""

        def value(obs: Tensor) -> Tensor:
            return self.value(self.critic.theta, self.normalize(obs.to(self.device, self.dtype)))

        values, next_values = episodes.values(value, max(1, VALUE_CHUNK // self.members))
        discount = self.gamma * ~episodes.terminated
        reward = episodes.reward.to(values)
        return self.advantage(reward, discount, next_values, episodes.last, longest=episodes.longest), values

    def refresh(self, episodes: Episodes) -> Tensor | None:
        """The targets of `targets`; None for a one-step estimator, which needs no more than a batch."""
        return None if self.advantage.one_step else self.targets(episodes)[0]

    def target(self, batch: Batch, next_obs: Tensor) -> Tensor:
        """[K, B], no gradient: from the last refresh, or else r + gamma (1 - terminated) V(s')."""
        if batch.target is not None:
            return batch.target
        if not self.advantage.one_step:
            raise ValueError("this estimator walks whole episodes: pass Batch.target from agent.refresh")
        return batch.reward + self.gamma * ~batch.terminated * self.value(self.critic.theta, next_obs)

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
        advantage = self.target(batch, next_obs) - value
        weight = self.weights(advantage)

        for _ in range(self.actor_iters):
            actor_metrics = self.actor_step(obs, batch.action, weight)

        return {
            "value_loss": value_loss,
            "explained_variance": explained,
            "mean_value": value.mean(-1),
            "mean_advantage": advantage.mean(-1),
            "std_advantage": advantage.std(-1, correction=0),
            **weights.health(weight, self.max_weight),
            **actor_metrics,
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

    def critic_step(self, obs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """One semi-gradient step of V toward the target; the loss and explained variance before it, [K] each."""

        def loss(theta: Tensor) -> tuple[Tensor, Tensor]:
            value = self.value(theta, obs)
            return losses.mean_squared_error(value, target), losses.explained_variance(value.detach(), target)

        return descend(self.critic, loss, self.critic_lr, self.max_grad_norm)
