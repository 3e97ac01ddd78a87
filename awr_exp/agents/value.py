"""What agents share whose critic is V(s), learnt by regression."""

from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.critic import CriticAgent, of_critic
from awr_exp.errors import UserError
from awr_exp.math import losses
from awr_exp.ranges import PerMember, Positive
from awr_exp.types import Batch, LossAndMetrics, Metrics


class ValueAgent(CriticAgent):
    """An agent with V(s), which minimises mean((target - V(s))^2); what the target is, the agent says.

    normalize_values: the critic's network and loss are in units of 1 / (1 - gamma), the largest return of rewards up to
    1; critic_output_scale: output_scale of the critic's network, or None for that of the network. options: other
    arguments of CriticAgent. Raises UserError if that unit is infinite.
    """

    def __init__(
        self,
        *args: Any,
        normalize_values: PerMember[bool] = False,
        critic_output_scale: Positive | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        normalized = self.hyper(normalize_values).bool()
        if bool((normalized & (self.gamma == 1)).any()):
            raise UserError("agent.normalize_values divides by 1 - gamma: choose agent.gamma below 1")
        self.value_scale = torch.where(normalized, 1 / (1 - self.gamma), 1.0)
        make = of_critic(self.make_critic, output_scale=critic_output_scale)
        self.critic = self.net("critic", make(inputs=self.spec.obs_dim, outputs=1))

    def value(self, obs: Tensor, theta: Tensor | None = None) -> Tensor:
        """V(s), [K, B], of normalised obs [K, B, obs_dim], by the critic's parameters or other ones."""
        theta = self.critic.theta if theta is None else theta
        return self.critic.module(theta, obs).squeeze(-1) * self.value_scale

    def value_update(self, batch: Batch, target: Tensor) -> Metrics:
        """One step of V on mean((target - V(s))^2), with a target [K, B] that has no gradient."""
        unit = self.value_scale.squeeze(1).square()

        def loss(theta: Tensor) -> LossAndMetrics:
            value = self.value(batch.obs, theta)
            seen = value.detach()
            report = {"explained_variance": losses.explained_variance(seen, target), "mean_value": seen.mean(-1)}
            return losses.mean_squared_error(value, target) / unit, report

        value_loss, report = self.descend(self.critic, loss, self.critic_lr)
        return {"value_loss": value_loss * unit, **report}
