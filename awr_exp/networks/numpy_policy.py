"""Policies of K members in NumPy: for a handful of observations, a tensor framework takes longer to begin than this.

Nothing here imports torch, so that a process which only steps environments can act by itself. Networks and heads say
by their `numpy` which of these forms they have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from awr_exp.math.observations import normalize
from awr_exp.types import Spec

Array = NDArray[Any]
NumpyNetwork = Callable[[Array], Array]
"""From normalised observations [K, E, obs_dim] to outputs [K, E, outputs]."""
NumpyHead = Callable[[Array, Array | None], Array]
"""From outputs and noise [K, E, noise] to actions [K, E, ...]; without noise, to those of evaluation."""


class NumpyPolicy(Protocol):
    """Anything that acts for K members in E environments each, by noise [K, E, noise] of standard normal numbers.

    It maps observations [K, E, obs_dim] to actions [K, E, ...].
    """

    @property
    def noise(self) -> int: ...

    def __call__(self, obs: NDArray[np.float32], noise: NDArray[np.float32]) -> Array: ...


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _silu(x: Array) -> Array:
    return x * (0.5 * np.tanh(0.5 * x) + 0.5)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "elu": _elu,
    "silu": _silu,
}
"""Those of `awr_exp.networks.mlp` that NumPy has."""


@dataclass(frozen=True)
class Layers:
    """An MLP of K members.

    layers: of each layer its weight [K, in, out], its bias [K, 1, out], and the scale and shift of its layer norm,
    [K, 1, out] or None.
    """

    layers: Sequence[Sequence[Any]]
    activation: str

    def __call__(self, x: Array) -> Array:
        *hidden, (last_weight, last_bias, *_) = self.layers
        for weight, bias, scale, shift in hidden:
            x = x @ weight + bias
            if scale is not None:
                centred = x - x.mean(-1, keepdims=True)
                x = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * scale + shift
            x = ACTIVATIONS[self.activation](x)
        return x @ last_weight + last_bias


@dataclass(frozen=True)
class Normal:
    """A Gaussian head; std: [K, 1, action_dim], or None where its logarithm is an output; squash: by tanh."""

    std: Array | None
    clamp: tuple[float, float]
    centre: Array
    scale: Array
    squash: bool

    def __call__(self, outputs: Array, noise: Array | None) -> Array:
        mean, std = (outputs, self.std) if self.std is not None else self._moments(outputs)
        x = mean if noise is None else mean + std * noise
        return self.centre + self.scale * (np.tanh(x) if self.squash else x)

    def _moments(self, outputs: Array) -> tuple[Array, Array]:
        mean, log_std = np.split(outputs, 2, -1)
        return mean, np.exp(np.clip(log_std, *self.clamp))


def choose(logits: Array, noise: Array | None) -> NDArray[np.int64]:
    """The categorical head draws an action by its logits, or without noise takes the most probable one."""
    return _raced(logits, noise).argmax(-1)


def _raced(logits: Array, noise: Array | None) -> Array:
    """Logits by noise, of which the largest is that of what is drawn."""
    if noise is None:
        return logits
    return logits - np.log(np.square(noise).reshape(*noise.shape[:-1], 2, -1).sum(-2))


@dataclass(frozen=True)
class Choices:
    """The head of n choices of at most m; place: [n * m] of logits among all; absent: [n, m], added to what is none."""

    place: Array
    absent: Array

    def __call__(self, logits: Array, noise: Array | None) -> NDArray[np.int64]:
        every = _raced(logits, noise)[..., self.place]
        return (every.reshape(*every.shape[:-1], *self.absent.shape) + self.absent).argmax(-1)


@dataclass(frozen=True)
class Components:
    """The head that is a mixture of `count` Gaussians of `width` numbers, each of which acts as `component` does."""

    count: int
    width: int
    component: NumpyHead

    def __call__(self, outputs: Array, noise: Array | None) -> Array:
        logits, moments = np.split(outputs, [self.count], -1)
        own, choosing = (None, None) if noise is None else np.split(noise, [self.width], -1)
        chosen = choose(logits, choosing)[..., None, None]
        each = moments.reshape(*moments.shape[:-1], self.count, -1)
        return self.component(np.take_along_axis(each, chosen, -2).squeeze(-2), own)


def near(candidates: int) -> int:
    """How many of the others lie near the one among so many candidates that is taken: a fourth part, or one."""
    return min(max(1, candidates // 4), candidates - 1)


@dataclass(frozen=True)
class Moving:
    """The head that moves noise to an action in `steps` steps of Euler; candidates [N, action_dim]: for evaluation.

    velocity: from features, places and times [K, E, ...] to velocities [K, E, action_dim].
    """

    velocity: NumpyNetwork
    steps: int
    candidates: Array
    centre: Array
    scale: Array
    unit: Array
    low: Array
    high: Array

    def __call__(self, outputs: Array, noise: Array | None) -> Array:
        if noise is not None:
            return self._moved(outputs, noise)
        members, rows, _ = outputs.shape
        count, width = self.candidates.shape
        begin = np.broadcast_to(np.tile(self.candidates, (rows, 1)), (members, rows * count, width))
        actions = self._moved(outputs.repeat(count, 1), begin).reshape(members, rows, count, width)
        x = (actions - self.centre) / self.unit
        distance = np.square(x[..., None, :] - x[..., None, :, :]).sum(-1)
        chosen = np.sort(distance, -1)[..., near(count)].argmin(-1)
        return np.take_along_axis(actions, chosen[..., None, None], -2).squeeze(-2)

    def _moved(self, outputs: Array, place: Array) -> Array:
        for step in range(self.steps):
            time = np.full_like(place[..., :1], step / self.steps)
            place = place + self.velocity(np.concatenate([outputs, place, time], -1)) / self.steps
        return np.clip(self.centre + self.scale * place, self.low, self.high)


@dataclass(frozen=True)
class Histogram:
    """The head of `bins` equal parts for each entry of the action."""

    bins: int
    centre: Array
    scale: Array

    def __call__(self, outputs: Array, noise: Array | None) -> Array:
        logits = outputs.reshape(*outputs.shape[:-1], -1, self.bins)
        if noise is None:
            passed = logits.argmax(-1).astype(outputs.dtype) + np.float32(0.5)
        else:
            shares = np.exp(logits - logits.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            within = (_evenly(noise)[..., None] - (shares.cumsum(-1) - shares)) / np.maximum(shares, 1e-12)
            passed = np.clip(within, 0, 1).sum(-1)
        return self.centre + self.scale * (2 * passed / self.bins - 1)


def _evenly(noise: Array) -> Array:
    """Numbers from 0 to 1 [..., n], drawn evenly, of normal ones [..., 2 n], whose direction is even."""
    one, other = np.split(noise, 2, -1)
    return np.arctan2(one, other) / np.float32(2 * np.pi) % 1


@dataclass(frozen=True)
class AskedForGood:
    """A network of a policy that is told what kind of action is wanted, by its last input: good ones."""

    network: NumpyNetwork

    def __call__(self, x: Array) -> Array:
        return self.network(np.concatenate([x, np.ones_like(x[..., :1])], -1))


@dataclass(frozen=True)
class Acting:
    """A policy of K members: its network and head, on observations that are normalised before.

    mean, std: [K, 1, obs_dim]; limit: [K, 1, 1]; noise: standard normal numbers that its head draws an action with.
    """

    mean: Array
    std: Array
    limit: Array
    network: NumpyNetwork
    head: NumpyHead
    noise: int

    def __call__(self, obs: Array, noise: Array | None = None) -> Array:
        """Actions [K, E, ...] for obs [K, E, obs_dim]: the policy's mode, or a sample by noise [K, E, ...].

        A Gaussian's may be out of bounds: learning from what samples were clipped to would draw the mean inward.
        """
        return self.head(self.network(normalize(obs, self.mean, self.std, self.limit)), noise)


@dataclass(frozen=True)
class Uniform:
    """Actions drawn evenly, from a width of 2 where they have no bounds or one: what exploring begins with."""

    spec: Spec

    @property
    def noise(self) -> int:
        return 2 * self.spec.action_dim

    def __call__(self, obs: Array, noise: Array) -> Array:
        share = _evenly(noise)
        if self.spec.discrete:
            counts = np.array(self.spec.counts)
            drawn = np.minimum(share * counts, counts - 1).astype(np.int64)
            return drawn.reshape(*drawn.shape[:-1], *self.spec.action_shape)
        low, high = (np.array(bound, np.float32) for bound in (self.spec.action_low, self.spec.action_high))
        low = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 2, -1))
        high = np.where(np.isfinite(high), high, low + 2)
        return (low + (high - low) * share).astype(np.float32)
