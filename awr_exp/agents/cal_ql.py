"""Cal-QL (Nakamoto et al. 2023, arXiv 2303.05479) for K members at once: CQL that is ready to go on online."""

import torch
from torch import Tensor

from awr_exp.agents.cql import CQL
from awr_exp.math.advantages import LambdaReturn
from awr_exp.types import Batch, Columns, Episodes


class CalQL(CQL):
    """CQL that presses Q of the policy's actions down to the data's returns and no further (eq. 5).

    Without that, Q is so low after CQL that whatever is seen first online looks better, and what was learnt is lost.
    Where an episode was cut, its return goes on with Q of the policy's action.
    """

    whole_episodes = True

    def calibrated(self, q: Tensor, batch: Batch) -> Tensor:
        assert batch.target is not None
        return torch.maximum(q, batch.target[:, None, None])

    @torch.no_grad()
    def targets(self, episodes: Episodes) -> Columns:
        """The discounted returns of the data from each transition on, [K, N]."""

        def value(obs: Tensor) -> Tensor:
            seen = self.normalize(obs.to(self.device, self.dtype))
            return self.slow_q(seen, self.inside(self.policy.act(self.actor.theta, seen)))

        return {"target": self.returns(episodes, value, LambdaReturn(1.0))["target"]}
