"""Gradient descent for K members over flat parameters, in place."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from awr_exp.math.members import Shardable

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8
MOMENTUM = 0.9


@dataclass
class Net(Shardable):
    """The parameters of one network for K members, its optimiser's state, and maybe a moving average of them.

    module: what gives the parameters their meaning, with `shapes` and `start`; theta: [K, P]; mean, square: the running
    moments of the gradient, [K, P]; step: updates so far, [K, 1]; alive: [K, 1], 0 once a gradient of the member was
    not finite, which freezes it for good; average: [K, P], or None where nobody asks for it.
    """

    module: Any
    theta: Tensor
    mean: Tensor
    square: Tensor
    step: Tensor
    alive: Tensor
    average: Tensor | None = None

    @classmethod
    def start(cls, module: Any, theta: Tensor, averaged: bool = False) -> "Net":
        column = theta.new_zeros(theta.shape[0], 1)
        moments = torch.zeros_like(theta), torch.zeros_like(theta)
        return cls(module, theta, *moments, column, column + 1, theta.clone() if averaged else None)

    def tensors(self) -> dict[str, Tensor]:
        """Its state by name, each with the member as first axis."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def averaged(self) -> "Net":
        """The same network with its average as parameters, where it has one."""
        return self if self.average is None else replace(self, theta=self.average)

    def forget_moments(self) -> None:
        """Reset the optimiser's state to what it is at the start."""
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

    def move_average(self, rate: Tensor) -> None:
        """Move the average, which there must be, toward theta by a share `rate` [K, 1] of the way."""
        assert self.average is not None
        self.average.lerp_(self.theta, rate)


def averaging_rate(decay: Tensor, step: Tensor) -> Tensor:
    """1 - decay [K, 1], and more at the start: after t updates the decay is at most (1 + t) / (10 + t)."""
    return 1 - torch.minimum(decay, (1 + step) / (10 + step))


def half_cosine(step: Tensor, steps: Tensor) -> Tensor:
    """The share of a learning rate after `step` of `steps` [K, 1], from 1 to 0 and 0 from then on; inf steps: always 1.

    Loshchilov and Hutter 2017, eq. 5, without restarts.
    """
    return (1 + torch.cos(torch.pi * (step / steps).clamp(max=1))) / 2


Optimizer = Callable[[Net, Tensor, Tensor, Tensor], None]
"""Takes a step of the parameters on grad [K, P] times scale [K, 1], with learning rate rate [K, 1].

A member that is not alive has rate 0 and must stay as it is, whatever its gradient."""


def adam(net: Net, grad: Tensor, scale: Tensor, rate: Tensor) -> None:
    """Kingma and Ba 2015, algorithm 1."""
    rate = rate / (1 - BETA_1**net.step).clamp(min=1e-12)
    correction = (1 - BETA_2**net.step).clamp(min=1e-12).rsqrt()
    # Side by side in memory, or the compiler works them out anew for every parameter.
    scale, rate, correction = torch.cat([scale, rate, correction], 1).split(1, 1)
    # A where, not a product: 0 times nan is nan.
    grad = torch.where(net.alive.bool(), grad * scale, 0)
    net.mean.lerp_(grad, 1 - BETA_1)
    net.square.mul_(BETA_2).addcmul_(grad, grad, value=1 - BETA_2)
    net.theta.sub_(rate * net.mean / (net.square.sqrt() * correction + EPSILON))


def momentum(net: Net, grad: Tensor, scale: Tensor, rate: Tensor) -> None:
    """Heavy ball (Polyak 1964): m = 0.9 m + g, theta = theta - rate m. Its `mean` is m; it has no use for `square`."""
    grad = torch.where(net.alive.bool(), grad * scale, 0)
    net.mean.mul_(MOMENTUM).add_(grad)
    net.theta.sub_(rate * net.mean)
