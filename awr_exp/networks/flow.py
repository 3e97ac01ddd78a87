"""A flow as a policy head: it moves noise to an action along a learnt velocity, and so has any number of modes."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from awr_exp.networks.head import Continuous, Extra
from awr_exp.networks.mlp import MLP, size
from awr_exp.networks.numpy_policy import Moving, NumpyHead
from awr_exp.ranges import Count, NotNegative, Widths
from awr_exp.types import Spec


class Flow(Continuous):
    """Flow matching (Lipman et al. 2023, arXiv 2210.02747) in units as of `Continuous`.

    The velocity v(s, x, t) is a network of the head's own, of layers `hidden`, whose inputs are `features` numbers that
    the policy's network makes of the observation, a place x and a time t. An action is where x is after `steps` steps
    of Euler from x_0, which is normal noise, and clipped to the bounds. The action of evaluation begins at the same x_0
    in every state: `begin` from 0 in each entry, to a side that is drawn once.
    """

    def __init__(
        self, spec: Spec, features: Count = 64, hidden: Widths = (256, 256), steps: Count = 10, begin: NotNegative = 0.5
    ) -> None:
        super().__init__(spec)
        self.outputs, self.noise, self.loss_noise = features, spec.action_dim, spec.action_dim + 1
        self.steps = steps
        self.velocity = MLP(features + spec.action_dim + 1, spec.action_dim, hidden)
        self.shapes = {"velocity": (size(self.velocity.shapes),)}
        sides = torch.randint(2, (spec.action_dim,), generator=Generator().manual_seed(0), device="cpu")
        self.begin = begin * torch.where(sides.bool(), 1.0, -1.0).to(self.low.device)

    def start(self, generators: Sequence[Generator]) -> Tensor:
        return self.velocity.start(generators)

    def _velocity(self, outputs: Tensor, extra: Extra, place: Tensor, time: Tensor) -> Tensor:
        return self.velocity(extra["velocity"], torch.cat([outputs, place, time], -1))

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        """|v(s, x_t, t) - (a - x_0)|^2 at a place x_t = (1 - t) x_0 + t a on the straight way from noise to action."""
        begin, drawn = noise.split([self.noise, 1], -1)
        # The distribution function of a normal number is evenly distributed.
        time = 0.5 + 0.5 * torch.erf(drawn / math.sqrt(2))
        way = self._in_units(action, outputs) - begin
        return self._total((self._velocity(outputs, extra, begin + time * way, time) - way).square())

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        place = (self.begin if noise is None else noise).to(outputs).expand(*outputs.shape[:-1], -1)
        for step in range(self.steps):
            time = torch.full_like(place[..., :1], step / self.steps)
            place = place + self._velocity(outputs, extra, place, time) / self.steps
        return self._to_action(place).clamp(self.low.to(place), self.high.to(place))

    def numpy(self, extra: Extra) -> NumpyHead | None:
        velocity = self.velocity.numpy(extra["velocity"])
        assert velocity is not None
        constants = (self.begin, self.centre, self.scale, self.low, self.high)
        return Moving(velocity, self.steps, *(each.cpu().float().numpy() for each in constants))
