"""Gradient descent for K members over flat parameters, in place."""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from awr_exp.math.members import rows

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
MOMENTUM = 0.9


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

    def forget_moments(self) -> None:
        """As at the start, for another optimiser."""
        for tensor in (self.mean, self.square, self.step):
            tensor.zero_()

    def descend(self, grad: Tensor, optimizer: "Optimizer", lr: Tensor, max_norm: Tensor) -> None:
        """One step of the optimiser on grad [K, P] with learning rate lr [K, 1].

        Each member's gradient is first scaled down to the norm max_norm [K, 1] (inf: not at all).
        """
        norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
        self.alive.mul_(norm.isfinite())
        self.step.add_(self.alive)
        scale = (max_norm / norm.clamp(min=1e-12)).clamp(max=1)
        optimizer(self, grad, scale, self.alive * lr)


Optimizer = Callable[[Parameters, Tensor, Tensor, Tensor], None]
"""Takes a step of the parameters on grad [K, P] times scale [K, 1], with learning rate rate [K, 1].

A member that is not alive has rate 0 and must stay as it is, whatever its gradient."""


def adam(parameters: Parameters, grad: Tensor, scale: Tensor, rate: Tensor) -> None:
    """Kingma and Ba 2015, algorithm 1."""
    rate = rate / (1 - BETA_1**parameters.step).clamp(min=1e-12)
    correction = (1 - BETA_2**parameters.step).clamp(min=1e-12).rsqrt()
    # Side by side in memory, or the compiler works them out anew for every parameter.
    scale, rate, correction = torch.cat([scale, rate, correction], 1).split(1, 1)
    # A where, not a product: 0 times nan is nan.
    grad = torch.where(parameters.alive.bool(), grad * scale, 0)
    parameters.mean.lerp_(grad, 1 - BETA_1)
    parameters.square.mul_(BETA_2).addcmul_(grad, grad, value=1 - BETA_2)
    parameters.theta.sub_(rate * parameters.mean / (parameters.square.sqrt() * correction + EPSILON))


def momentum(parameters: Parameters, grad: Tensor, scale: Tensor, rate: Tensor) -> None:
    """Heavy ball (Polyak 1964): m = 0.9 m + g, theta = theta - rate m. Its `mean` is m; it has no use for `square`."""
    grad = torch.where(parameters.alive.bool(), grad * scale, 0)
    parameters.mean.mul_(MOMENTUM).add_(grad)
    parameters.theta.sub_(rate * parameters.mean)


def average_toward(average: Tensor, parameters: Parameters, decay: Tensor) -> None:
    """Move the average [K, P] toward theta by 1 - decay [K, 1], in place.

    After t updates the decay is at most (1 + t) / (10 + t), so that the start is soon forgotten.
    """
    most = (1 + parameters.step) / (10 + parameters.step)
    average.lerp_(parameters.theta, 1 - torch.minimum(decay, most))
