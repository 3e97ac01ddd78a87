"""Reward-weighted regression (Peters and Schaal 2007), as Peng et al. 2019 compare with it: no baseline."""

from torch import Tensor

from awr_exp.agents.awr import AWR
from awr_exp.types import Batch


class RWR(AWR):
    """AWR whose weights are made from the returns themselves; the critic only bootstraps."""

    judged_by = frozenset({"target"})

    def advantage(self, batch: Batch) -> Tensor:
        return self.target(batch)
