"""pi(a|s) of K members: a network and a head over one flat parameter tensor."""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from awr_exp.networks.heads import Extra, Head
from awr_exp.networks.mlp import MLP, Shapes, unflatten
from awr_exp.types import Spec

MakeNetwork = Callable[..., MLP]
MakeHead = Callable[[Spec], Head]


class Policy:
    """theta [K, P] is the network's parameters followed by the head's; obs [K, B, obs_dim] is normalised."""

    def __init__(self, spec: Spec, network: MakeNetwork, head: MakeHead) -> None:
        self.head = head(spec)
        self.network = network(inputs=spec.obs_dim, outputs=self.head.outputs)
        self.shapes: Shapes = {**self.network.shapes, **self.head.shapes}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial theta [K, P] on the CPU."""
        theta = self.network.start(generators)
        return torch.cat([theta, self.head.start().expand(theta.shape[0], -1)], 1)

    def _parts(self, theta: Tensor) -> tuple[Tensor, Extra]:
        """The network's parameters [K, P] and the head's, in the same memory."""
        extra_size = sum(torch.Size(shape).numel() for shape in self.head.shapes.values())
        network, extra = theta.split([theta.shape[1] - extra_size, extra_size], 1)
        return network, unflatten(extra, self.head.shapes) if extra_size else {}

    def _head_inputs(self, theta: Tensor, obs: Tensor) -> tuple[Tensor, Extra]:
        network, extra = self._parts(theta)
        return self.network(network, obs), extra

    def log_prob(self, theta: Tensor, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of the actions and entropy of the policy, [K, B] each, and the head's penalty, [K]."""
        inputs = self._head_inputs(theta, obs)
        return self.head.log_prob(*inputs, action), self.head.entropy(*inputs), self.head.penalty(*inputs)

    def mode(self, theta: Tensor, obs: Tensor) -> Tensor:
        """[K, B, action_dim], of a Gaussian maybe out of bounds, or [K, B] of int64."""
        return self.head.mode(*self._head_inputs(theta, obs))

    def sample(self, theta: Tensor, obs: Tensor, generators: Sequence[Generator]) -> Tensor:
        """As `mode`, drawn from the policy."""
        return self.head.sample(*self._head_inputs(theta, obs), generators)

    @torch.no_grad()
    def anneal(self, theta: Tensor, progress: float) -> None:
        """Set the head's parameters that follow the course of online training, from 0 to 1, in place."""
        self.head.anneal(self._parts(theta)[1], progress)
