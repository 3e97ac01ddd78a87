"""What agents share whose policy climbs Q while it is held near the data: the twin delayed critic, and that actor."""

from typing import Any

from torch import Tensor

from awr_exp.agents.q import QAgent
from awr_exp.errors import UserError
from awr_exp.ranges import NotNegative, PerMember
from awr_exp.types import Batch, LossAndMetrics, Metrics


class TD3(QAgent):
    """A policy that climbs Q (Fujimoto et al. 2018, arXiv 1802.09477), offline held by a regression on the data.

    bc_coef: what the regression's loss counts beside Q, which is divided by the mean of its size; policy_noise and
    noise_clip: deviation and limit of the noise on the next action, in units in which finite bounds are -1 and 1. The
    slow policy of the targets is the average of the actor's parameters that is evaluated. options: other arguments of
    QAgent. Raises UserError for discrete actions, for a head whose actions have no gradient, and for no such average.
    """

    continuous_only = True

    def __init__(
        self,
        *args: Any,
        bc_coef: PerMember[NotNegative] = 1.0,
        policy_noise: PerMember[NotNegative] = 0.2,
        noise_clip: PerMember[NotNegative] = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        if not self.policy.head.differentiable:
            raise UserError(
                f"{type(self).__name__} climbs Q along the policy's actions, which have no gradient with "
                f"head={type(self.policy.head).__name__}: choose head=deterministic"
            )
        if bool((self.ema_decay == 0).any()):
            raise UserError("agent.ema_decay is 0, but this average is the slow policy of the targets: try 0.995")
        self.bc_coef = self.hyper(bc_coef)
        self.policy_noise, self.noise_clip = self.hyper(policy_noise), self.hyper(noise_clip)
        self.noise_sizes["next"] = self.spec.action_dim

    def next_action(self, batch: Batch) -> Tensor:
        """The slow policy's action in s' with noise that is cut off, [K, B, action_dim] (TD3, eq. 14)."""
        action = self.policy.act(self.actor.averaged().theta, batch.next_obs)
        limit = self.noise_clip.unsqueeze(-1)
        noise = (self.policy_noise.unsqueeze(-1) * self.noise(batch, "next")).clamp(-limit, limit)
        return self.inside(action + self.q.module.as_inputs.unit.to(noise) * noise)

    def critic_update(self, batch: Batch) -> Metrics:
        return self.q_update(batch, self.slow_q(batch.next_obs, self.next_action(batch)))

    def actor_loss(self, theta: Tensor, batch: Batch, weight: Tensor) -> LossAndMetrics:
        """bc_coef times the weighted regression, less Q(s, pi(s)) / mean |Q| (Fujimoto and Gu 2021, eq. 3 and 5)."""
        regression, report = super().actor_loss(theta, batch, weight)
        q = self.smallest_q(batch.obs, self.inside(self.policy.act(theta, batch.obs)))
        size = q.detach().abs().mean(-1).clamp(min=1e-6)
        report |= {"regression_loss": regression, "policy_q": q.mean(-1)}
        return self.bc_coef.squeeze(1) * regression - q.mean(-1) / size, report
