"""A policy head without a distribution: one action in each state, learnt by squared error."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from awr_exp.networks.head import Continuous, Extra
from awr_exp.networks.numpy_policy import Array, NumpyHead
from awr_exp.ranges import NotNegative
from awr_exp.types import Spec


class Deterministic(Continuous):
    """One action in each state, inside its bounds by tanh where it has finite ones.

    The loss is the squared error, summed over the entries, in units as of `Continuous`. std: of the noise of actions
    that are drawn to explore, in these units.
    """

    def __init__(self, spec: Spec, std: NotNegative = 0.1) -> None:
        super().__init__(spec)
        self.std, self.outputs, self.noise = std, spec.action_dim, spec.action_dim
        self.bounded = self.low.isfinite() & self.high.isfinite()

    def _mean(self, outputs: Tensor) -> Tensor:
        """The action in units."""
        return torch.where(self.bounded.to(outputs.device), torch.tanh(outputs), outputs)

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        return self.total((self._mean(outputs) - self.in_units(action, outputs)).square())

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        mean = self._mean(outputs)
        return self.to_action(mean if noise is None else mean + self.std * noise)

    def numpy(self, extra: Extra) -> NumpyHead:
        constants = (self.bounded, self.centre, self.scale)
        return Single(self.std, *(each.cpu().numpy().copy() for each in constants))


@dataclass(frozen=True)
class Single:
    """The head for arrays; bounded, centre, scale: [action_dim]."""

    std: float
    bounded: Array
    centre: Array
    scale: Array

    def __call__(self, outputs: Array, noise: Array | None) -> Array:
        mean = np.where(self.bounded, np.tanh(outputs), outputs)
        return self.centre + self.scale * (mean if noise is None else mean + np.float32(self.std) * noise)
