"""A head: a Laplace distribution, which odd actions pull less than a Gaussian, to the median and not to the mean."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from awr_exp.networks.head import Continuous, Extra, Likelihood
from awr_exp.types import Spec


class Laplace(Continuous, Likelihood):
    """An entry's density is exp(-|a - m| / b) / 2b: the network makes m, and b is learnt.

    As all heads that are `Continuous`, it works in units in which bounds are -1 and 1.
    """

    def __init__(self, spec: Spec, width: float = 0.5) -> None:
        super().__init__(spec)
        self.outputs, self.noise, self.width = spec.action_dim, 4 * spec.action_dim, width
        self.shapes = {"log_width": (1, spec.action_dim)}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        return torch.full((len(generators), self.action_dim), math.log(self.width))

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        log_width = extra["log_width"]
        distance = (self.in_units(action, outputs) - outputs).abs()
        return self.total(-distance * (-log_width).exp() - log_width) - self.choices * math.log(2) - self.log_scale

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        return self.total((1 + math.log(2) + extra["log_width"]).expand_as(outputs)) + self.log_scale

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        """m, and b times a Laplace number, which is half of a sum of squared normal ones less another such sum."""
        if noise is None:
            return self.to_action(outputs)
        more, less = noise.square().chunk(2, -1)
        drawn = 0.5 * (more - less).unflatten(-1, (2, -1)).sum(-2)
        return self.to_action(outputs + extra["log_width"].exp() * drawn)
