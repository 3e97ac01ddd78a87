"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905) for K members at once: what `cql` presses down."""

import math
from typing import Any

from torch import Tensor

from awr_exp.agents.q import QAgent
from awr_exp.errors import UserError
from awr_exp.math.members import filled
from awr_exp.networks.mlp import Scalar
from awr_exp.ranges import Number, PerMember
from awr_exp.types import Batch, LossAndMetrics, Metrics, Spec

MOST = 1_000
"""Discrete actions that are all weighed in each state, where they are combinations of several choices."""


class SAC(QAgent):
    """A policy that climbs Q and keeps a certain entropy; of discrete actions all means are exact.

    target_entropy: in nats; None: minus the number of an action's entries, where bounds are -1 and 1, or a tenth of
    what discrete ones have at most. options: other arguments of QAgent. Raises UserError for a head without a density,
    and for more combinations of choices than can be weighed.
    """

    @classmethod
    def check_task(cls, spec: Spec) -> None:
        super().check_task(spec)
        if spec.num_actions is None and (count := math.prod(spec.counts)) > MOST:
            said = f"{count:,}" if count < 10**9 else f"{count:.3g}"
            raise UserError(
                f"{cls.__name__} weighs all actions in each state, and {spec.choices} make {said}, more than "
                f"{MOST:,}: choose another agent, such as agent=iql or agent=awac"
            )

    def __init__(self, *args: Any, target_entropy: PerMember[Number | None] = None, **options: Any) -> None:
        super().__init__(*args, **options)
        head, discrete = self.policy.head, self.spec.discrete
        if not (head.known_density and (head.differentiable or discrete)):
            raise UserError(f"head={type(head).__name__} lacks a density or a gradient: choose head=auto_squashed")
        most = math.log(math.prod(self.spec.counts))
        usual = 0.1 * most if discrete else self.q.module.as_inputs.log_unit - self.spec.action_dim
        self.target_entropy = self.hyper(filled(target_entropy, usual)).squeeze(1)
        self.temperature = self.net("temperature", Scalar())
        self.noise_sizes = {"actor": head.noise, "next": head.noise}

    def drawn(self, theta: Tensor, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Actions [K, n, B, ...] of the policy, log pi of each, and what each counts in a mean over them, [K, n, B]."""
        if self.spec.discrete:
            actions, log_prob = self.policy.weigh(theta, obs, self.q.module.as_inputs.every())
            return actions, log_prob, log_prob.exp()
        actions, log_prob = self.policy.draws(theta, obs, noise.unsqueeze(1))
        return self.inside(actions), log_prob, log_prob.new_ones(log_prob.shape)

    def critic_update(self, batch: Batch) -> Metrics:
        """One step of Q toward r + gamma Q(s', a'), without an entropy in the value."""
        actions, _, share = self.drawn(self.actor.theta, batch.next_obs, self.noise(batch, "next"))
        slow = self.q.module.of_each(self.q.averaged().theta, batch.next_obs, actions).amin(1)
        return self.q_update(batch, (share * slow).sum(1))

    def actor_loss(self, theta: Tensor, batch: Batch, weight: Tensor) -> LossAndMetrics:
        """Mean of T log pi(a|s) - Q(s, a) for actions a of the policy, [K] (eq. 7)."""
        actions, log_prob, share = self.drawn(theta, batch.obs, self.noise(batch, "actor"))
        q = self.q.module.of_each(self.q.theta, batch.obs, actions).amin(1)
        temperature = self.temperature.theta.exp().unsqueeze(-1)
        report = {"entropy": -(share * log_prob).sum(1).mean(-1), "policy_q": (share * q).sum(1).mean(-1)}
        return (share * (temperature * log_prob - q)).sum(1).mean(-1), report

    def actor_update(self, batch: Batch, weight: Tensor) -> Metrics:
        """A step of the policy, then one of the temperature T toward the target entropy (eq. 18)."""
        report = super().actor_update(batch, weight)
        missing = self.target_entropy - report["entropy"]
        self.descend(self.temperature, lambda theta: (-theta.squeeze(1) * missing, {}), self.annealed_lr())
        return report | {"entropy_temperature": self.temperature.theta.exp().squeeze(1)}
