"""ReBRAC (Tarasov et al. 2023, arXiv 2305.09836) for K members at once: TD3+BC with a penalty in the critic, too."""

from typing import Any

from awr_exp.agents.td3 import TD3
from awr_exp.ranges import NotNegative, PerMember
from awr_exp.types import Batch, Metrics


class ReBRAC(TD3):
    """TD3 with two penalties: `bc_coef` on the policy's distance from the data, `critic_bc_coef` on that of its next
    action.

    pi maximises Q(s, pi(s)) - bc_coef (pi(s) - a)^2, and Q minimises (r + gamma (Q_slow(s', a') - critic_bc_coef
    (a' - what the data did next)^2) - Q(s, a))^2, in units of actions (eq. 3 and 4).
    critic_bc_coef: what the squared distance of the next action from the data's takes from the target (eq. 4); nothing
    where the data do not say what was done next, at the end of an episode. options: other arguments of TD3.
    """

    reads_next_action = True

    def __init__(self, *args: Any, critic_bc_coef: PerMember[NotNegative] = 0.01, **options: Any) -> None:
        super().__init__(*args, **options)
        self.critic_bc_coef = self.hyper(critic_bc_coef)

    def critic_update(self, batch: Batch) -> Metrics:
        assert batch.next_action is not None
        action = self.next_action(batch)
        away = (action - batch.next_action) / self.q.module.as_inputs.unit.to(action)
        known = ~(batch.terminated | batch.truncated)
        penalty = self.critic_bc_coef * known * away.square().sum(-1)
        return self.q_update(batch, self.slow_q(batch.next_obs, action) - penalty)
