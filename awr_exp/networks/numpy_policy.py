"""The policy of K members in NumPy: for a handful of observations, a tensor framework takes longer to begin than this.

Nothing here imports torch, so that a process which only steps environments can act by itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from awr_exp.math.observations import normalize
from awr_exp.types import Spec

if TYPE_CHECKING:
    from torch import Tensor

    from awr_exp.networks.policy import Policy

Array = NDArray[Any]


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
class Normal:
    """The Gaussian heads: std [K, 1, action_dim], or None where its logarithm is an output; squash: by tanh."""

    std: Array | None
    clamp: tuple[float, float]
    centre: Array
    scale: Array
    squash: bool

    @property
    def noise(self) -> int:
        return len(self.scale)

    def __call__(self, outputs: Array, noise: Array | None) -> Array:
        mean, std = (outputs, self.std) if self.std is not None else self._moments(outputs)
        x = mean if noise is None else mean + std * noise
        return self.centre + self.scale * (np.tanh(x) if self.squash else x)

    def _moments(self, outputs: Array) -> tuple[Array, Array]:
        mean, log_std = np.split(outputs, 2, -1)
        return mean, np.exp(np.clip(log_std, *self.clamp))


@dataclass(frozen=True)
class Choice:
    """The categorical head."""

    actions: int

    @property
    def noise(self) -> int:
        return 2 * self.actions

    def __call__(self, outputs: Array, noise: Array | None) -> NDArray[np.int64]:
        if noise is None:
            return outputs.argmax(-1)
        times = np.square(noise).reshape(*noise.shape[:-1], 2, -1).sum(-2)
        return (outputs - np.log(times)).argmax(-1)


@dataclass(frozen=True)
class NumpyMLP:
    """The policy of an MLP.

    mean, std [K, 1, obs_dim], limit [K, 1, 1]: how observations are normalised; layers: weight [K, in, out] and bias
    [K, 1, out] each, and of layer norms theirs [K, 1, out] or None."""

    mean: Array
    std: Array
    limit: Array
    layers: Sequence[tuple[Array, Array, tuple[Array, Array] | None]]
    activation: str
    head: Normal | Choice

    @property
    def noise(self) -> int:
        """Standard normal numbers that an action is drawn with."""
        return self.head.noise

    def __call__(self, obs: Array, noise: Array | None = None) -> NDArray[Any]:
        """Actions [K, E, ...] for obs [K, E, obs_dim]: the policy's mode, or a sample by noise [K, E, ...].

        A Gaussian's may be out of bounds: learning from what samples were clipped to would draw the mean inward.
        """
        x = normalize(obs, self.mean, self.std, self.limit)
        *hidden, (weight, bias, _) = self.layers
        for w, b, norm in hidden:
            x = x @ w + b
            if norm is not None:
                centred = x - x.mean(-1, keepdims=True)
                x = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * norm[0] + norm[1]
            x = ACTIVATIONS[self.activation](x)
        return self.head(x @ weight + bias, noise)


@dataclass(frozen=True)
class Uniform:
    """Actions drawn evenly, from a width of 2 where they have no bounds or one: what exploring begins with."""

    spec: Spec

    @property
    def noise(self) -> int:
        return 2 * self.spec.action_dim

    def __call__(self, obs: Array, noise: Array) -> NDArray[Any]:
        # The direction of two normal numbers is evenly distributed.
        one, other = np.split(noise, 2, -1)
        share = np.arctan2(one, other) / np.float32(2 * np.pi) % 1
        if self.spec.num_actions is not None:
            return np.minimum(share[..., 0] * self.spec.num_actions, self.spec.num_actions - 1).astype(np.int64)
        low, high = (np.array(bound, np.float32) for bound in (self.spec.action_low, self.spec.action_high))
        low = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high - 2, -1))
        high = np.where(np.isfinite(high), high, low + 2)
        return (low + (high - low) * share).astype(np.float32)


def numpy_policy(policy: "Policy", theta: "Tensor", mean: "Tensor", std: "Tensor", limit: "Tensor") -> NumpyMLP | None:
    """A policy with parameters theta [K, P] and the normaliser's mean and std [K, obs_dim] and limit [K, 1], copied.

    None for networks and heads that have no form here, such as one's own.
    """
    from awr_exp.networks import heads
    from awr_exp.networks.mlp import MLP, unflatten

    network, head = policy.network, policy.head
    theta = theta.detach().cpu().float()
    part = {name: tensor.numpy().copy() for name, tensor in unflatten(theta, policy.shapes).items()}
    if type(network) is not MLP or network.activation not in ACTIVATIONS:
        return None
    numpy_head: Normal | Choice
    if type(head) is heads.Categorical:
        numpy_head = Choice(head.outputs)
    elif isinstance(head, heads.Gaussian) and type(head).__module__ == heads.__name__:
        units = {name: getattr(head, name).cpu().float().numpy() for name in ("centre", "scale")}
        clamp = (heads.LOG_STD_MIN, heads.LOG_STD_MAX)
        own = np.exp(np.clip(part["log_std"], *clamp)) if "log_std" in part else None
        if not isinstance(head.std, str):
            own = np.full([1, 1, head.action_dim], head.std, np.float32)
        numpy_head = Normal(own, clamp, **units, squash=type(head) is heads.TanhGaussian)
    else:
        return None
    layers = []
    for layer in range(len(network.hidden) + 1):
        norm = (part[f"{layer}.norm.weight"], part[f"{layer}.norm.bias"]) if f"{layer}.norm.bias" in part else None
        layers.append((part[f"{layer}.weight"], part[f"{layer}.bias"], norm))
    centre, deviation, farthest = (t.cpu().float().unsqueeze(1).numpy().copy() for t in (mean, std, limit))
    return NumpyMLP(centre, deviation, farthest, layers, network.activation, numpy_head)
