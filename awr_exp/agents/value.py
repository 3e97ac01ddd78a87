"""What agents share that learn V(s) by regression on an estimator's target."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import VALUE_CHUNK, Agent
from awr_exp.errors import UserError
from awr_exp.math import losses
from awr_exp.math.advantages import Estimator
from awr_exp.math.members import Hyper, Limit, Switch
from awr_exp.math.optimizers import Parameters
from awr_exp.networks.policy import MakeHead, MakeNetwork
from awr_exp.types import Batch, Episodes, Spec


class ValueAgent(Agent):
    """An actor and a critic.

    advantage: the estimator of the target, advantages being target - V(s); gamma: discount; normalize_values: the
    critic's network and loss are in units of 1 / (1 - gamma), the largest return of rewards up to 1;
    critic_output_scale: output_scale of the critic's network, or None for that of the network. Raises UserError if the
    unit is infinite.
    """

    def __init__(
        self,
        spec: Spec,
        network: MakeNetwork,
        head: MakeHead,
        advantage: Estimator,
        seeds: Sequence[int],
        gamma: Hyper,
        actor_lr: Hyper,
        critic_lr: Hyper,
        max_grad_norm: Limit,
        normalize_values: Switch = False,
        critic_output_scale: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(spec, network, head, seeds, actor_lr, max_grad_norm, **options)
        self.advantage, self.whole_episodes = advantage, not advantage.one_step
        self.gamma, self.critic_lr = self.hyper(gamma), self.hyper(critic_lr)
        normalized = self.hyper(normalize_values).bool()
        if bool((normalized & (self.gamma == 1)).any()):
            raise UserError("agent.normalize_values divides by 1 - gamma: choose agent.gamma below 1")
        self.value_scale = torch.where(normalized, 1 / (1 - self.gamma), 1.0)
        own = {} if critic_output_scale is None else {"output_scale": critic_output_scale}
        self.value_network = network(inputs=spec.obs_dim, outputs=1, **own)
        self.critic = self.parameters("critic", self.value_network.start)

    @property
    def networks(self) -> dict[str, Parameters]:
        return {"actor": self.actor, "critic": self.critic}

    def value(self, theta: Tensor, obs: Tensor) -> Tensor:
        """V(s), [K, B], of normalised obs [K, B, obs_dim]."""
        return self.value_network(theta, obs).squeeze(-1) * self.value_scale

    @torch.no_grad()
    def targets(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Targets with today's critic, vectorised over all episodes, and V(s): [K, N] both."""

        def value(obs: Tensor) -> Tensor:
            return self.value(self.critic.theta, self.normalize(obs.to(self.device, self.dtype)))

        values, next_values = episodes.values(value, max(1, VALUE_CHUNK[self.device.type] // self.members))
        discount = self.gamma * ~episodes.terminated
        reward = episodes.reward.to(values)
        return self.advantage(reward, discount, next_values, episodes.last, longest=episodes.longest), values

    def refresh(self, episodes: Episodes) -> Tensor | None:
        """The targets of `targets`; None for a one-step estimator, which needs no more than a batch."""
        return self.targets(episodes)[0] if self.whole_episodes else None

    def target(self, batch: Batch, next_obs: Tensor) -> Tensor:
        """[K, B], no gradient: from the last refresh, or else r + gamma (1 - terminated) V(s')."""
        if batch.target is not None:
            return batch.target
        if self.whole_episodes:
            raise ValueError("this estimator walks whole episodes: pass Batch.target from agent.refresh")
        return batch.reward + self.gamma * ~batch.terminated * self.value(self.critic.theta, next_obs)

    def critic_step(self, obs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """One semi-gradient step of V toward the target; squared error and explained variance before it, [K] each."""
        unit = self.value_scale.squeeze(1).square()

        def loss(theta: Tensor) -> tuple[Tensor, Tensor]:
            value = self.value(theta, obs)
            return losses.mean_squared_error(value, target) / unit, losses.explained_variance(value.detach(), target)

        value_loss, explained = self.descend(self.critic, loss, self.critic_lr)
        return value_loss * unit, explained
