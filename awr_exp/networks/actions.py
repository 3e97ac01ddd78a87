"""Actions as inputs of a network, such as one of Q(s, a)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from awr_exp.networks.mlp import Ensemble, MakeNetwork, Shapes
from awr_exp.types import Spec


class ActionInputs:
    """Finite bounds become -1 and 1, and a discrete action is 1 in its own place; size: numbers an action."""

    def __init__(self, spec: Spec) -> None:
        self.num_actions, self.size = spec.num_actions, spec.num_actions or spec.action_dim
        low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        wide = (low < high) & (high - low).isfinite()
        self.centre = torch.where(wide, (low + high) / 2, 0)
        self.unit = torch.where(wide, (high - low) / 2, 1)

    def __call__(self, action: Tensor, like: Tensor) -> Tensor:
        """[K, B, size] of the dtype of `like` from actions [K, B, action_dim], or [K, B] of int64."""
        if self.num_actions is not None:
            return F.one_hot(action, self.num_actions).to(like)
        return (action - self.centre.to(like)) / self.unit.to(like)


class Q:
    """Q(s, a) by `size` networks that begin differently, as one pure function of theta [K, P]."""

    def __init__(self, spec: Spec, network: MakeNetwork, size: int = 2) -> None:
        self.as_inputs = ActionInputs(spec)
        one = network(inputs=spec.obs_dim, extra=self.as_inputs.size, outputs=1)
        self.networks = Ensemble(one, size)

    @property
    def shapes(self) -> Shapes:
        return self.networks.shapes

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial theta [K, P] on the CPU."""
        return self.networks.start(generators)

    def __call__(self, theta: Tensor, obs: Tensor, action: Tensor) -> Tensor:
        """[K, size, B] from normalised obs [K, B, obs_dim] and actions [K, B, ...] in their own units."""
        return self.networks(theta, torch.cat([obs, self.as_inputs(action, obs)], -1)).squeeze(-1)
