"""A policy head without a distribution: one action in each state, learnt by squared error."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.networks.actions import ActionInputs
from awr_exp.networks.head import Extra, Head
from awr_exp.networks.numpy_policy import Array, NumpyHead
from awr_exp.ranges import NotNegative
from awr_exp.types import Spec


class Deterministic(Head):
    """One action in each state, inside its bounds by tanh where it has finite ones.

    The loss is the squared error, summed over the entries, in units in which finite bounds are -1 and 1. std: of the
    noise of actions that are drawn to explore, in these units. Raises UserError for discrete actions.
    """

    def __init__(self, spec: Spec, std: NotNegative = 0.1) -> None:
        if spec.discrete:
            raise UserError(
                f"head=deterministic needs continuous actions; this task has {spec.num_actions} discrete ones: use "
                "head=auto or head=categorical"
            )
        self.units, self.std = ActionInputs(spec), std
        self.outputs = self.noise = spec.action_dim
        self.squashed = torch.tensor(spec.action_low).isfinite() & torch.tensor(spec.action_high).isfinite()

    def _scaled(self, outputs: Tensor) -> Tensor:
        return torch.where(self.squashed.to(outputs.device), torch.tanh(outputs), outputs)

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        return (self._scaled(outputs) - self.units(action, outputs)).square().sum(-1)

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        scaled = self._scaled(outputs)
        return self.units.back(scaled if noise is None else scaled + self.std * noise)

    def numpy(self, extra: Extra) -> NumpyHead:
        tensors = (self.squashed, self.units.centre, self.units.unit)
        return Single(self.std, *(each.cpu().numpy().copy() for each in tensors))


@dataclass(frozen=True)
class Single:
    """The head for arrays; squashed, centre, unit: [action_dim]."""

    std: float
    squashed: Array
    centre: Array
    unit: Array

    def __call__(self, outputs: Array, noise: Array | None) -> Array:
        scaled = np.where(self.squashed, np.tanh(outputs), outputs)
        return self.centre + self.unit * (scaled if noise is None else scaled + np.float32(self.std) * noise)
