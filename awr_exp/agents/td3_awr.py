"""TD3-AWR (Jackson et al. 2025, arXiv 2504.11453) for K members at once: IQL's weights and a Q term in one actor."""

from awr_exp.agents.iql import IQL
from awr_exp.agents.td3 import TD3
from awr_exp.types import Batch, Metrics


class TD3AWR(TD3, IQL):
    """A policy that climbs Q, held by AWR's regression with weights of Q(s, a) - V(s); V is an expectile as in IQL.

    options: arguments of TD3 and IQL.
    """

    def critic_update(self, batch: Batch) -> Metrics:
        """A step of V toward its expectile, then one of Q toward the slow policy's next action."""
        return self.value_update(batch) | super().critic_update(batch)
