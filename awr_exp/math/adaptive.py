"""Weightings whose temperature sets itself: beta is solved for what the weights are to do.

Both measures of that are divergences of the weighted advantages from the unweighted ones, which fall as beta rises.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from awr_exp.math.running import SMALLEST, Running
from awr_exp.ranges import InsideUnit, PerMember, Positive, Unit, checked

GRID = 256
"""Order statistics of the advantages that are remembered, whatever the size of a batch."""
POINTS = 12
"""Betas that are tried at once, in each of two rounds; the second one is between two of the first."""
AT_ONCE = 10_000
"""Order statistics, of all batches in one call, for which beta is solved at once: what is tried stays in the cache."""
SMALL, LARGE = 1e-3, 1e2
"""Ends of the betas that are tried: shares of mean distances of the advantages from the best one, see `solved`."""


class Adaptive(Running):
    """min(exp(A / beta) / Z, max_weight), where beta and Z are those of a running average of sorted advantages.

    beta solves divergence = `wanted` [K, 1], and Z makes the mean weight 1, both before max_weight. That of the agent
    has no effect. Shift and scale of the advantages have none on the weights.
    """

    learnt = ("quantiles", "step")
    size = GRID
    rows = GRID
    """Advantages in a batch."""
    quantiles: Tensor
    wanted: Tensor

    @staticmethod
    def divergence(log_weight: Tensor) -> Tensor:
        """[...] of unnormalised log-weights [..., N], at most 0: from 0 where they are alike to log N."""
        raise NotImplementedError

    def told(self, member: int, divergence: float) -> tuple[str, str]:
        """The setting of a member, and a divergence, in words."""
        raise NotImplementedError

    def statistic(self, advantage: Tensor) -> Tensor:
        self.rows = advantage.shape[-1]
        return F.adaptive_avg_pool1d(advantage.sort(-1).values, GRID)

    def weigh(self, advantage: Tensor, average: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        best = average[..., -1:]
        behind = average - best
        parts = behind.split(max(1, AT_ONCE // behind[0].numel())) if behind.dim() > 2 else [behind]
        solved = torch.cat([self.solved(part) for part in parts])
        self.reported = {"beta": solved.squeeze(-1)}
        log_mean = (behind / solved).exp().mean(-1, keepdim=True).log()
        # Where no advantage is better than another, how they differ from batch to batch says nothing either.
        log_weight = torch.where(behind[..., :1] > -SMALLEST, 0, (advantage - best) / solved - log_mean)
        return torch.minimum(log_weight, max_weight.log()).exp()

    def solved(self, behind: Tensor) -> Tensor:
        """The beta [..., K, 1] of advantages less the best one, [..., K, GRID], or the nearest that is tried."""
        # The mean of the roots, squared, is hardly moved by a few that are far behind; that of the squares is.
        near = behind.abs().sqrt().mean(-1, keepdim=True).square().clamp(min=SMALLEST)
        far = (torch.linalg.vector_norm(behind, dim=-1, keepdim=True) / GRID**0.5).clamp(min=SMALLEST)
        behind = behind.unsqueeze(-2)
        point = torch.arange(POINTS, dtype=near.dtype, device=near.device)
        low = (SMALL * near).log()
        step = ((LARGE * far).log() - low) / (POINTS - 1)
        for _ in range(2):
            found = self.divergence(behind / (low + step * point).exp().unsqueeze(-1))
            # It falls along the points: the one that is wanted lies between two of them, or beyond an end.
            place = (found > self.wanted).sum(-1, keepdim=True).clamp(1, POINTS - 1)
            low, step = low + step * (place - 1), step / (POINTS - 1)
        above, below = found.gather(-1, torch.cat([place - 1, place], -1)).clamp(min=1e-12).log().split(1, -1)
        share = ((above - self.wanted.log()) / (above - below).clamp(min=1e-12)).clamp(0, 1)
        return (low + step * (POINTS - 1) * share).exp()

    def warnings(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        own = self.shard(slice(member, member + 1))
        if not own.step.any():
            return
        behind = own.quantiles - own.quantiles[:, -1:]
        found, wanted = float(own.divergence(behind / own.solved(behind))), float(own.wanted)
        setting, used = self.told(member, found)
        share, most = math.exp(-found), min(self.rows, GRID)
        if float(behind.min()) > -SMALLEST:
            reason = "all advantages are the same, and all weights are 1"
        elif 0.95 * wanted < found < 1.05 * wanted:
            return
        elif found > wanted:
            reason = f"the weights are all nearly equal, and {used} is used"
        elif share < 1.5 / most:
            reason = f"a single one of {most} advantages has all the weight, and {used} is used instead"
        else:
            reason = f"{share:.1%} of the advantages are as good as the best, and {used} is used instead"
        yield "out of reach", f"{setting} is out of reach: {reason}"


@checked("weighting")
class AdaptiveESS(Adaptive):
    """`Adaptive` with an effective sample size of `target`, as a share of the batch.

    Its divergence is - log ESS, that of Renyi of order 2. Standardised Gaussian advantages have 0.37 at a beta of 1.
    """

    target: Tensor

    def __init__(self, target: PerMember[InsideUnit] = 0.37, rate: PerMember[Unit] = 0.01) -> None:
        super().__init__(rate, target=target)

    def start(self, column: Tensor) -> Self:
        new = super().start(column)
        new.wanted = -new.target.log()
        return new

    @staticmethod
    def divergence(log_weight: Tensor) -> Tensor:
        weight = log_weight.exp()
        first, second = weight.sum(-1), torch.linalg.vector_norm(weight, dim=-1)
        return math.log(log_weight.shape[-1]) + 2 * (second / first).log()

    def told(self, member: int, divergence: float) -> tuple[str, str]:
        used = f"an effective sample size of {math.exp(-divergence):.3g}"
        return f"weighting.target={float(self.target[member]):.7g}", used


@checked("weighting")
class AdaptiveKL(Adaptive):
    """`Adaptive` with a KL of the weighted from the unweighted advantages of `epsilon` nats.

    beta is so the multiplier of the constraint that AWR is derived from (Peng et al. 2019, eq. 5), as MPO solves it
    (Abdolmaleki et al. 2018, section 4.1). Gaussian advantages have sigma^2 / (2 beta^2) nats.
    """

    epsilon: Tensor

    def __init__(self, epsilon: PerMember[Positive] = 0.5, rate: PerMember[Unit] = 0.01) -> None:
        super().__init__(rate, epsilon=epsilon)

    def start(self, column: Tensor) -> Self:
        new = super().start(column)
        new.wanted = new.epsilon
        return new

    @staticmethod
    def divergence(log_weight: Tensor) -> Tensor:
        weight = log_weight.exp()
        total = weight.sum(-1)
        return math.log(log_weight.shape[-1]) - total.log() + (weight * log_weight).sum(-1) / total

    def told(self, member: int, divergence: float) -> tuple[str, str]:
        return f"weighting.epsilon={float(self.epsilon[member]):g}", f"a KL of {divergence:.3g} nats"
