"""Advantage conditioning: the policy learns all actions, and is told which of them are good."""

import copy
import math
from typing import Self

import torch
from torch import Tensor

from awr_exp.math.members import Stateful, per_member
from awr_exp.ranges import BelowOne, Number, PerMember, checked


@checked("weighting")
class Conditioned(Stateful):
    """Says 1 of actions whose advantage is above a threshold, and 0 of others (RECAP, arXiv 2511.14759, section IV).

    The policy gets this as an input instead of weights, and is asked for good actions when it acts: see `Policy`.
    threshold: in the units of the advantage; dropout: share of the actions whose kind is kept from the policy, so that
    it learns the data as a whole, too.
    """

    conditions = True
    threshold: Tensor
    dropout: Tensor

    def __init__(self, threshold: PerMember[Number] = 0.0, dropout: PerMember[BelowOne] = 0.1) -> None:
        self.settings = {"threshold": threshold, "dropout": dropout}

    def start(self, column: Tensor) -> Self:
        new = copy.copy(self)
        for name, value in self.settings.items():
            setattr(new, name, per_member(value, len(column), column))
        return new

    def __call__(self, advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
        return (advantage > self.threshold).to(advantage.dtype)

    def condition(self, good: Tensor, noise: Tensor) -> Tensor:
        """What the policy is told, [K, B], by standard normal noise [K, B]: 1 good, -1 not, 0 nothing."""
        share = 0.5 * (1 + torch.erf(noise / math.sqrt(2)))
        return torch.where(share < self.dropout, 0, 2 * good - 1)
