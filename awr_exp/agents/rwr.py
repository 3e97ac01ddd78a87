"""Reward-weighted regression (Peters and Schaal 2007), as Peng et al. 2019 compare with it: no baseline."""

from torch import Tensor

from awr_exp.agents.awr import AWR


class RWR(AWR):
    """AWR whose weights are made from the returns themselves; the critic only bootstraps."""

    def surplus(self, target: Tensor, value: Tensor) -> Tensor:
        return target
