"""Adam for K members over flat parameters, in place."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from awr_exp.math.members import rows

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


@dataclass
class Parameters:
    """All parameters of one network for K members, and their optimiser's state.

    theta: [K, P]; mean, square: the running moments of the gradient, [K, P]; step: updates so far, [K, 1];
    alive: [K, 1], 0 once a gradient of the member was not finite, which freezes it for good.
    """

    theta: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor
    alive: Tensor

    @classmethod
    def start(cls, theta: Tensor) -> "Parameters":
        column = theta.new_zeros(theta.shape[0], 1)
        return cls(theta, torch.zeros_like(theta), torch.zeros_like(theta), column, column + 1)

    def some(self, members: slice) -> "Parameters":
        """The chosen members' parameters, in the same memory."""
        return Parameters(*(rows(getattr(self, field.name), members) for field in fields(self)))

    def descend(self, grad: Tensor, lr: Tensor, max_norm: Tensor) -> None:
        """One step of Adam (Kingma and Ba 2015, alg. 1) on grad [K, P] with learning rate lr [K, 1].

        Each member's gradient is first scaled down to the norm max_norm [K, 1] (inf: not at all).
        """
        norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        self.alive.mul_(norm.isfinite())
        self.step.add_(self.alive)
        scale = (max_norm / norm.clamp(min=1e-12)).clamp(max=1)
        rate = self.alive * lr / (1 - BETA_1**self.step).clamp(min=1e-12)
        correction = (1 - BETA_2**self.step).clamp(min=1e-12).rsqrt()
        # Side by side in memory, or the compiler works them out anew for every parameter.
        scale, rate, correction = torch.cat([scale, rate, correction], 1).split(1, 1)
        # A where, not a product: 0 times nan is nan.
        grad = torch.where(self.alive.bool(), grad * scale, 0)
        self.mean.lerp_(grad, 1 - BETA_1)
        self.square.mul_(BETA_2).addcmul_(grad, grad, value=1 - BETA_2)
        self.theta.sub_(rate * self.mean / (self.square.sqrt() * correction + EPSILON))
