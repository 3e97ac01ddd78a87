"""A head: a policy that moves noise to an action along a learnt velocity (flow matching, arXiv 2210.02747)."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from awr_exp.networks.actions import ActionInputs
from awr_exp.networks.head import Extra, Head
from awr_exp.networks.mlp import MLP, size
from awr_exp.types import Spec


class Flow(Head):
    """The network makes features of the observation; the velocity is a small network of these, a place and a time.

    features: numbers that it takes of the network; steps: of Euler, from noise to an action.
    """

    def __init__(self, spec: Spec, features: int = 32, steps: int = 5) -> None:
        self.outputs, self.noise, self.loss_noise = features, spec.action_dim, spec.action_dim + 1
        self.steps, self.units = steps, ActionInputs(spec)
        self.velocity = MLP(features + spec.action_dim + 1, spec.action_dim, (64,))
        self.shapes = {"velocity": (size(self.velocity.shapes),)}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        return self.velocity.start(generators)

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        """|v(x_t, t, s) - (a - x_0)|^2 at a time of the straight way from x_0, which is noise, to the action."""
        begin, drawn = noise[..., :-1], noise[..., -1:]
        time = 0.5 + 0.5 * torch.erf(drawn / 2**0.5)
        end = self.units(action, outputs)
        place = begin + time * (end - begin)
        velocity = self.velocity(extra["velocity"], torch.cat([outputs, place, time], -1))
        return (velocity - (end - begin)).square().sum(-1)

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        """From noise, or for evaluation from its middle."""
        place = outputs.new_zeros(*outputs.shape[:-1], self.noise) if noise is None else noise.to(outputs)
        for step in range(self.steps):
            time = torch.full_like(place[..., :1], step / self.steps)
            place = place + self.velocity(extra["velocity"], torch.cat([outputs, place, time], -1)) / self.steps
        return self.units.centre.to(place) + self.units.unit.to(place) * place
