"""Weightings that learn the scale of the advantages while training goes on."""

import copy

import torch
from torch import Tensor

from awr_exp.math.members import Stateful
from awr_exp.math.weights import exp_clip
from awr_exp.ranges import Unit, checked


@checked("weighting")
class ExpRunningScale(Stateful):
    """`exp_clip` of A / c, where c^2 is a running average of A^2 (MARWIL, Wang et al. 2018, section 5).

    beta is so in units of c, whatever the scale of the rewards. rate: share of the way by which c^2 moves toward the
    mean of A^2 of each batch; more at the start, so that the first batches count alike.
    """

    learnt = ("square", "step")
    square: Tensor
    step: Tensor

    def __init__(self, rate: Unit = 0.01) -> None:
        self.rate = rate

    def start(self, column: Tensor) -> "ExpRunningScale":
        new = copy.copy(self)
        new.square, new.step = torch.zeros_like(column), torch.zeros_like(column)
        return new

    def __call__(self, advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        self.step.add_(1)
        rate = (1 / self.step).clamp(min=self.rate)
        self.square.lerp_(advantage.square().mean(-1, keepdim=True), rate)
        return exp_clip(advantage / self.square.sqrt().clamp(min=1e-8), beta, max_weight)
