"""Critic-regularised regression (Wang et al. 2020, arXiv 2006.15134) for K members at once."""

from typing import Any, Literal

from torch import Tensor

from awr_exp.agents.awac import AWAC


class CRR(AWAC):
    """AWAC whose V may be the best of the drawn actions; its weights are exponential or an indicator (eq. 3 and 4).

    estimate: whether V is the mean or the max of Q of the drawn actions (section 3.3). options: other arguments of
    AWAC.
    """

    def __init__(self, *args: Any, estimate: Literal["mean", "max"] = "mean", **options: Any) -> None:
        super().__init__(*args, **options)
        self.estimate = estimate

    def state_value(self, q: Tensor) -> Tensor:
        return q.amax(1) if self.estimate == "max" else q.mean(1)
