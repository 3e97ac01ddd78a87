"""A flow as a policy head: it moves noise to an action along a learnt velocity, and so has any number of modes."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from awr_exp.networks.head import Continuous, Extra
from awr_exp.networks.mlp import MLP, size
from awr_exp.networks.numpy_policy import Moving, NumpyHead, near
from awr_exp.ranges import Count, Widths
from awr_exp.types import Spec


class Flow(Continuous):
    """Flow matching (Lipman et al. 2023, arXiv 2210.02747) in units as of `Continuous`.

    The velocity v(s, x, t) is a network of the head's own, of layers `hidden`, whose inputs are `features` numbers that
    the policy's network makes of the observation, a place x and a time t. An action is where x is after `steps` steps
    of Euler from x_0, which is normal noise, and clipped to the bounds.

    From the middle of the noise one would come between two modes, and from any other x_0 to the edge of some. So the
    action of evaluation is one of `candidates`, of the same noise in every state, that lies where they are dense: a
    fourth of the others are the nearest to it.
    """

    # The way to an action has one, but which of the candidates evaluation takes is chosen.
    differentiable = False

    def __init__(
        self,
        spec: Spec,
        features: Count = 64,
        hidden: Widths = (256, 256),
        steps: Count = 10,
        candidates: Count = 16,
    ) -> None:
        super().__init__(spec)
        self.outputs, self.noise, self.loss_noise = features, spec.action_dim, spec.action_dim + 1
        self.steps = steps
        self.velocity = MLP(features + spec.action_dim + 1, spec.action_dim, hidden)
        self.shapes = {"velocity": (size(self.velocity.shapes),)}
        drawn = torch.randn(candidates, spec.action_dim, generator=Generator().manual_seed(0), device="cpu")
        self.candidates = drawn.to(self.low.device)

    def start(self, generators: Sequence[Generator]) -> Tensor:
        return self.velocity.start(generators)

    def _velocity(self, outputs: Tensor, extra: Extra, place: Tensor, time: Tensor) -> Tensor:
        return self.velocity(extra["velocity"], torch.cat([outputs, place, time], -1))

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        """|v(s, x_t, t) - (a - x_0)|^2 at a place x_t = (1 - t) x_0 + t a on the straight way from noise to action."""
        begin, drawn = noise.split([self.noise, 1], -1)
        # The distribution function of a normal number is evenly distributed.
        time = 0.5 + 0.5 * torch.erf(drawn / math.sqrt(2))
        way = self.in_units(action, outputs) - begin
        return self.total((self._velocity(outputs, extra, begin + time * way, time) - way).square())

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        if noise is not None:
            return self._moved(outputs, extra, noise.to(outputs))
        count, rows = len(self.candidates), outputs.shape[1]
        begin = self.candidates.to(outputs).repeat(rows, 1).expand(len(outputs), -1, -1)
        actions = self._moved(outputs.repeat_interleave(count, 1), extra, begin).unflatten(1, (rows, count))
        x = self.in_units(actions, outputs)
        radius = (x.unsqueeze(-2) - x.unsqueeze(-3)).square().sum(-1).sort(-1).values[..., near(count)]
        chosen = radius.argmin(-1)[..., None, None].expand(-1, -1, 1, self.action_dim)
        return actions.gather(-2, chosen).squeeze(-2)

    def _moved(self, outputs: Tensor, extra: Extra, place: Tensor) -> Tensor:
        """The actions that places [K, B, action_dim] at time 0 become."""
        for step in range(self.steps):
            time = torch.full_like(place[..., :1], step / self.steps)
            place = place + self._velocity(outputs, extra, place, time) / self.steps
        return self.to_action(place).clamp(self.low.to(place), self.high.to(place))

    def numpy(self, extra: Extra) -> NumpyHead | None:
        velocity = self.velocity.numpy(extra["velocity"])
        assert velocity is not None
        constants = (self.candidates, self.centre, self.scale, self.unit, self.low, self.high)
        return Moving(velocity, self.steps, *(each.cpu().float().numpy() for each in constants))
