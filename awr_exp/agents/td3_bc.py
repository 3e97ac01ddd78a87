"""TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860) for K members at once: a minimal approach to offline learning."""

from typing import Any

from awr_exp.agents.td3 import TD3
from awr_exp.ranges import PerMember, Positive


class TD3BC(TD3):
    """TD3 whose policy is held near the data by a squared error, the mean over the entries of an action.

    alpha: what Q / mean |Q| counts beside that error (eq. 5). options: other arguments of TD3 but `bc_coef`.
    """

    def __init__(self, *args: Any, alpha: PerMember[Positive] = 2.5, **options: Any) -> None:
        super().__init__(*args, bc_coef=1.0, **options)
        # The head's error is a sum over entries. A factor of the whole loss is none to Adam.
        self.bc_coef = 1 / (self.hyper(alpha) * self.spec.action_dim)
