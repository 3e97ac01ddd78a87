"""pi(a|s) of K members: a network and a head over one flat parameter tensor."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from awr_exp.networks.head import Extra, Head
from awr_exp.networks.mlp import MakeNetwork, Shapes, of_task, size, unflatten
from awr_exp.networks.numpy_policy import Acting, AskedForGood
from awr_exp.types import Metrics, Spec

MakeHead = Callable[[Spec], Head]


class Policy:
    """theta [K, P] is the network's parameters followed by the head's; obs [K, B, obs_dim] is normalised.

    conditioned: whether it is told what kind of action is wanted by one more input of the network: 1 good ones, -1
    others, 0 any. It acts as if asked for good ones.
    """

    def __init__(self, spec: Spec, network: MakeNetwork, head: MakeHead, conditioned: bool = False) -> None:
        self.head, self.conditioned = head(spec), conditioned
        told = {"extra": 1} if conditioned else {}
        self.network = of_task(network, spec)(inputs=spec.obs_dim, outputs=self.head.outputs, **told)
        self.shapes: Shapes = {**self.network.shapes, **self.head.shapes}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial theta [K, P] on the CPU."""
        return torch.cat([self.network.start(generators), self.head.start(generators)], 1)

    def parts(self, theta: Tensor) -> tuple[Tensor, Extra]:
        """The network's parameters [K, P] and the head's, in the same memory."""
        extra_size = size(self.head.shapes)
        network, extra = theta.split([theta.shape[1] - extra_size, extra_size], 1)
        return network, unflatten(extra, self.head.shapes) if extra_size else {}

    def _head_inputs(self, theta: Tensor, obs: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Extra]:
        network, extra = self.parts(theta)
        if self.conditioned:
            told = torch.ones_like(obs[..., :1]) if condition is None else condition.unsqueeze(-1)
            obs = torch.cat([obs, told], -1)
        return self.network(network, obs), extra

    def loss(
        self, theta: Tensor, obs: Tensor, action: Tensor, noise: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Metrics]:
        """The head's loss of the actions by noise [K, B, head.loss_noise], [K, B]; its penalty, [K], and its report.

        condition: what it is told of each action, [K, B], where it is conditioned.
        """
        inputs = self._head_inputs(theta, obs, condition)
        return self.head.loss(*inputs, action, noise), self.head.penalty(*inputs), self.head.report(*inputs)

    def act(self, theta: Tensor, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions [K, B, action_dim], of a Gaussian maybe out of bounds, or [K, B] or [K, B, n] of int64.

        noise: standard normal numbers [K, B, head.noise] to draw them with, or None for those of evaluation.
        """
        return self.head.act(*self._head_inputs(theta, obs), noise)

    def _several(self, theta: Tensor, obs: Tensor, count: int) -> tuple[Tensor, Extra]:
        """What the head takes, [K, count * B, ...], for several actions in each state; the network runs once."""
        outputs, extra = self._head_inputs(theta, obs)
        return outputs.unsqueeze(1).expand(-1, count, -1, -1).flatten(1, 2), extra

    def samples(self, theta: Tensor, obs: Tensor, noise: Tensor) -> Tensor:
        """Several actions in each state, [K, n, B, ...], by noise [K, n, B, head.noise]."""
        inputs = self._several(theta, obs, noise.shape[1])
        return self.head.act(*inputs, noise.flatten(1, 2)).unflatten(1, noise.shape[1:3])

    def draws(self, theta: Tensor, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`samples`, and the logarithm of the density of each, [K, n, B]."""
        actions, log_prob = self.head.draw(*self._several(theta, obs, noise.shape[1]), noise.flatten(1, 2))
        return actions.unflatten(1, noise.shape[1:3]), log_prob.unflatten(1, noise.shape[1:3])

    def weigh(self, theta: Tensor, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The same actions [N, ...] in each state, [K, N, B, ...], and the logarithm of the probability of each."""
        of_each = actions.repeat_interleave(obs.shape[1], 0).expand(len(theta), -1, *actions.shape[1:])
        log_prob = self.head.log_prob(*self._several(theta, obs, len(actions)), of_each)
        return of_each.unflatten(1, (-1, obs.shape[1])), log_prob.unflatten(1, (-1, obs.shape[1]))

    @torch.no_grad()
    def anneal(self, theta: Tensor, progress: float) -> None:
        """Set the head's parameters that follow the course of online training, from 0 to 1, in place."""
        self.head.anneal(self.parts(theta)[1], progress)

    def numpy(self, theta: Tensor, *normalizer: Tensor) -> Acting | None:
        """The same in NumPy with theta as it is now; None where the network or the head has no such form.

        normalizer: mean and std [K, obs_dim] and limit [K, 1] of observations.
        """
        own, extra = self.parts(theta.detach().cpu().float())
        network, head = form(self.network, "numpy", own), form(self.head, "numpy", extra)
        if network is None or head is None:
            return None
        if self.conditioned:
            network = AskedForGood(network)
        mean, std, limit = (each.cpu().float().unsqueeze(1).numpy().copy() for each in normalizer)
        return Acting(mean, std, limit, network, head, self.head.noise)


def form(part: Any, name: str, *parameters: Any) -> Any:
    """Another form of a network or head, made of its parameters as they are now; None where it has none."""
    make = getattr(part, name, None)
    return make(*parameters) if make else None
