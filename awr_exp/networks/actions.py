"""Actions as inputs of a network, such as one of Q(s, a)."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from awr_exp.networks.mlp import MakeNetwork, Shapes, of_task
from awr_exp.types import Spec


class ActionInputs:
    """Finite bounds become -1 and 1, and of all choices there are an action's own are 1; size: numbers an action."""

    def __init__(self, spec: Spec) -> None:
        self.discrete, self.size = spec.discrete, sum(spec.counts) or spec.action_dim
        self.counts, self.single = spec.counts, spec.action_shape == ()
        counts = torch.tensor(spec.counts, dtype=torch.int64)
        # Of each choice that there is, whose it is and its number there.
        self.of = torch.arange(len(counts)).repeat_interleave(counts)
        self.number = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts)[self.of]
        low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        wide = (low < high) & (high - low).isfinite()
        self.centre = torch.where(wide, (low + high) / 2, 0)
        self.unit = torch.where(wide, (high - low) / 2, 1)
        self.low, self.high, self.log_unit = low, high, float(self.unit.log().sum())

    def __call__(self, action: Tensor, like: Tensor) -> Tensor:
        """[K, B, size] of the dtype of `like` from actions [K, B, action_dim], or [K, B] or [K, B, n] of int64."""
        if self.discrete:
            each = action.unsqueeze(-1) if self.single else action.index_select(-1, self.of.to(action.device))
            return (each == self.number.to(action.device)).to(like)
        return (action - self.centre.to(like)) / self.unit.to(like)

    def every(self) -> Tensor:
        """All discrete actions, [N] or [N, n] of int64."""
        choices = [torch.arange(count, device=self.number.device) for count in self.counts]
        return choices[0] if self.single else torch.cartesian_prod(*choices).reshape(-1, len(choices))

    def back(self, scaled: Tensor) -> Tensor:
        """Continuous actions in their own units from these."""
        return self.centre.to(scaled) + self.unit.to(scaled) * scaled

    def chance(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Continuous actions that are drawn evenly, by normal noise [..., action_dim], and the log of their density.

        Those without finite bounds are drawn from -1 to 1.
        """
        # Filled on the device: a captured update cannot fetch a number from the host.
        density = noise.new_full(noise.shape[:-1], -self.log_unit - self.size * math.log(2))
        return self.back(torch.erf(noise / 2**0.5)), density

    def inside(self, action: Tensor) -> Tensor:
        """Actions as the environment will take them: cut off at the bounds, where there are some."""
        return action if self.discrete else action.clamp(self.low.to(action), self.high.to(action))


class Q:
    """Q(s, a) by `size` networks that begin differently, whose parameters are laid end to end in theta [K, P]."""

    def __init__(self, spec: Spec, network: MakeNetwork, size: int = 2) -> None:
        self.as_inputs, self.size = ActionInputs(spec), size
        self.network = of_task(network, spec)(inputs=spec.obs_dim, extra=self.as_inputs.size, outputs=1)

    @property
    def shapes(self) -> Shapes:
        """The network's shapes, once under the number of each copy."""
        return {f"{n}.{name}": shape for n in range(self.size) for name, shape in self.network.shapes.items()}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial theta [K, P] on the CPU."""
        return torch.cat([self.network.start(generators) for _ in range(self.size)], 1)

    def __call__(self, theta: Tensor, obs: Tensor, action: Tensor) -> Tensor:
        """[K, size, B] from normalised obs [K, B, obs_dim] and actions [K, B, ...] in their own units."""
        inputs = torch.cat([obs, self.as_inputs(action, obs)], -1).repeat_interleave(self.size, 0)
        outputs = self.network(theta.unflatten(1, (self.size, -1)).flatten(0, 1), inputs)
        return outputs.unflatten(0, (-1, self.size)).squeeze(-1)

    def of_each(self, theta: Tensor, obs: Tensor, actions: Tensor) -> Tensor:
        """[K, size, n, B] of n actions [K, n, B, ...] in each state."""
        count = actions.shape[1]
        return self(theta, obs.repeat(1, count, 1), actions.flatten(1, 2)).unflatten(-1, (count, -1))

    def best(self, theta: Tensor, obs: Tensor, actions: Tensor) -> Tensor:
        """Of n actions [K, n, B, ...] in each state the one with the largest Q, of which the smallest counts."""
        actions = self.as_inputs.inside(actions)
        chosen = self.of_each(theta, obs, actions).amin(1).argmax(1, keepdim=True)
        return actions.gather(1, chosen.view(*chosen.shape, *[1] * (actions.dim() - 3)).expand_as(actions[:, :1]))[:, 0]
