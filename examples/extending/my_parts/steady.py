"""A weighting with state: the temperature moves until the wanted share of a batch counts."""

import copy
from typing import Self

import torch
from torch import Tensor

from awr_exp.math.members import Hyper, Stateful, per_member
from awr_exp.math.weights import effective_sample_size, exp_clip


class Steady(Stateful):
    """min(exp(A / (c beta)), max_weight), where c rises while fewer rows than `share` of a batch count, and else falls.

    share: wanted effective sample size, from 0 to 1; rate: of the movement of log c.
    """

    learnt = ("log_scale",)
    log_scale: Tensor
    wanted: Tensor

    def __init__(self, share: Hyper = 0.5, rate: float = 0.1) -> None:
        self.share, self.rate = share, rate

    def start(self, column: Tensor) -> Self:
        new = copy.copy(self)
        new.wanted, new.log_scale = per_member(self.share, len(column), column), torch.zeros_like(column)
        return new

    def __call__(self, advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        weight = exp_clip(advantage, beta * self.log_scale.exp(), max_weight)
        self.log_scale.add_(self.rate * (self.wanted - effective_sample_size(weight).unsqueeze(-1)))
        return weight
