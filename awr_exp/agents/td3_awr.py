"""TD3-AWR (Jackson et al. 2025, arXiv 2504.11453) for K members at once: IQL's weights and a Q term in one actor."""

from typing import Any

from awr_exp.agents.iql import IQL
from awr_exp.agents.rebrac import ReBRAC
from awr_exp.ranges import NotNegative, PerMember
from awr_exp.types import Batch, Metrics


class TD3AWR(ReBRAC, IQL):
    """A policy that climbs Q, held by AWR's regression with weights of Q(s, a) - V(s); V is an expectile as in IQL.

    critic_bc_coef: as in ReBRAC; 0 is TD3's target. options: arguments of TD3 and IQL.
    """

    def __init__(self, *args: Any, critic_bc_coef: PerMember[NotNegative] = 0.0, **options: Any) -> None:
        super().__init__(*args, critic_bc_coef=critic_bc_coef, **options)

    def critic_update(self, batch: Batch) -> Metrics:
        """A step of V toward its expectile, then one of Q toward the slow policy's next action."""
        return self.value_update(batch) | super().critic_update(batch)
