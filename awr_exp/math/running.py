"""Weightings that follow the advantages by a running average while training goes on."""

import copy
from collections.abc import Iterator, Mapping
from typing import Self

import torch
from torch import Tensor

from awr_exp.math.members import Hyper, Stateful, per_member
from awr_exp.math.weights import exp_clip
from awr_exp.ranges import BelowOne, Percent, PerMember, Unit, checked
from awr_exp.types import Metrics

SMALLEST = 1e-8
"""Advantages that spread by less are all the same."""


class Running(Stateful):
    """A weighting by a running average of a statistic of each batch; a subclass says which, and what weights it makes.

    learnt: the name of the average [K, size] and `step`; rate: share of the way by which it moves toward the statistic
    of each batch, more at the start, so that the first batches count alike; settings: further hyper-parameters. Each of
    them becomes a column [K, 1] of its name. Advantages [S, K, B] are those of S batches, one after another.
    """

    several = True
    size = 1
    rate: Tensor
    step: Tensor

    def __init__(self, rate: PerMember[Unit], **settings: Hyper) -> None:
        self.settings = {"rate": rate, **settings}
        self.reported: Metrics = {}

    def statistic(self, advantage: Tensor) -> Tensor:
        """[..., K, size] of advantages [..., K, B]."""
        raise NotImplementedError

    def weigh(self, advantage: Tensor, average: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        """Weights [..., K, B], by the average [..., K, size] with these very advantages in it."""
        raise NotImplementedError

    def start(self, column: Tensor) -> Self:
        new = copy.copy(self)
        for name, value in self.settings.items():
            setattr(new, name, per_member(value, len(column), column))
        setattr(new, self.learnt[0], column.new_zeros(len(column), self.size))
        new.step = torch.zeros_like(column)
        return new

    @property
    def average(self) -> Tensor:
        """The running average, which has a name of its own in checkpoints: it is of no use to another weighting."""
        found: Tensor = getattr(self, self.learnt[0])
        return found

    def follow(self, statistic: Tensor) -> Tensor:
        """The average after each of the batches that the statistic [..., K, size] is of."""
        if statistic.dim() > 2:
            return torch.stack([self.follow(one).clone() for one in statistic])
        self.step.add_(1)
        return self.average.lerp_(statistic, torch.maximum(1 / self.step, self.rate))

    def __call__(self, advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        return self.weigh(advantage, self.follow(self.statistic(advantage)), beta, max_weight)

    def report(self) -> Metrics:
        return self.reported


@checked("weighting")
class ExpRunningScale(Running):
    """`exp_clip` of A / c, where c^2 is a running average of A^2 (MARWIL, Wang et al. 2018, section 5).

    beta is so in units of c, whatever the scale of the rewards.
    """

    learnt = ("square", "step")

    def __init__(self, rate: PerMember[Unit] = 0.01) -> None:
        super().__init__(rate)

    def statistic(self, advantage: Tensor) -> Tensor:
        return advantage.square().mean(-1, keepdim=True)

    def weigh(self, advantage: Tensor, average: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        return exp_clip(advantage / average.sqrt().clamp(min=SMALLEST), beta, max_weight)


@checked("weighting")
class Sigmoid(Running):
    """sigma(A / (beta S)), where S is a running average of the range from the 5th to the 95th percentile of A.

    No advantage, however large, counts more than twice as much as one of 0; max_weight has no effect. Bounded weights
    held where exponential ones failed (arXiv 2512.03973).
    """

    learnt = ("range", "step")
    lower: Tensor
    upper: Tensor

    def __init__(self, rate: PerMember[Unit] = 0.01) -> None:
        super().__init__(rate, lower=0.05, upper=0.95)

    def statistic(self, advantage: Tensor) -> Tensor:
        ordered = advantage.sort(-1).values
        return quantile(ordered, self.upper) - quantile(ordered, self.lower)

    def weigh(self, advantage: Tensor, average: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        return (advantage / (beta * average.clamp(min=SMALLEST))).sigmoid()


@checked("weighting")
class Quantile(Running):
    """1 for the best `top_percent` of the advantages, and `floor` for the others; beta and max_weight have no effect.

    The threshold is a running average of the batches' quantiles. Advantages that equal it are among the best.
    """

    learnt = ("threshold", "step")
    top_percent: Tensor
    floor: Tensor

    def __init__(
        self, top_percent: PerMember[Percent] = 30.0, floor: PerMember[BelowOne] = 0.0, rate: PerMember[Unit] = 0.01
    ) -> None:
        super().__init__(rate, top_percent=top_percent, floor=floor)

    def statistic(self, advantage: Tensor) -> Tensor:
        return quantile(advantage.sort(-1).values, 1 - self.top_percent / 100)

    def weigh(self, advantage: Tensor, average: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        return torch.where(advantage >= average, 1, self.floor)

    def warnings(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        wanted, floor = float(self.top_percent[member]), float(self.floor[member])
        share = (metrics.get("mean_weight", 0.0) - floor) / (1 - floor)
        if share > 1.5 * wanted / 100 + 0.1:
            yield (
                "out of reach",
                f"weighting.top_percent={wanted:g} is out of reach: {share:.0%} of the advantages have a weight of 1, "
                "since many are alike, or batches are too small to tell so few apart",
            )


def quantile(ordered: Tensor, share: Tensor) -> Tensor:
    """The quantile [..., K, 1] of ascending numbers [..., K, N] with a share [K, 1] of them below it, interpolated."""
    last = ordered.shape[-1] - 1
    place = (share * last).expand(*ordered.shape[:-1], 1)
    # Among very many numbers, the place of the last one is rounded up.
    below, above = (one.long().clamp(max=last) for one in (place.floor(), place.ceil()))
    return torch.lerp(ordered.gather(-1, below), ordered.gather(-1, above), place.frac())
