"""Multilayer perceptrons of K members as pure functions of their flat parameters.

All parameters of a network lie in one tensor theta [K, P]: a gradient, its norm, Adam and a checkpoint are then
one operation each, and a member is a row. A single network is K = 1.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from awr_exp.networks import numpy_policy
from awr_exp.ranges import Positive, Widths, checked
from awr_exp.types import Spec

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
}
INITS = ("orthogonal", "lecun", "kaiming", "xavier")

Shapes = dict[str, tuple[int, ...]]


class Network(Protocol):
    """A pure function of its parameters theta [K, P], made from numbers of `inputs`, `outputs` and `extra` inputs.

    shapes: name and shape of each parameter, without the member axis, in their order in theta.
    """

    @property
    def shapes(self) -> Shapes: ...

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial parameters [K, P] on the CPU, each member's from its own generator."""

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """[K, B, inputs + extra] -> [K, B, outputs]."""


MakeNetwork = Callable[..., Network]


def of_task(network: MakeNetwork, spec: Spec) -> MakeNetwork:
    """What makes a network for a task: one that has an argument `observation` is told of what parts they are."""
    try:
        seen = "observation" in inspect.signature(network).parameters
    except (TypeError, ValueError):
        # It cannot be called, or is a builtin: what is wrong with it is said by its contract.
        return network
    return partial(network, observation=spec.entries) if seen else network


def size(shapes: Shapes) -> int:
    """Numbers that parameters of these shapes are, of one member."""
    return sum(map(math.prod, shapes.values()))


def unflatten(theta: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Views of theta [K, P] as {name: [K, *shape]}, in the order of `shapes`."""
    parts = theta.split([math.prod(shape) for shape in shapes.values()], 1)
    return {name: part.unflatten(1, shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def initial_weight(init: str, shape: tuple[int, ...], gain: float, generator: Generator) -> Tensor:
    """Weights [fan_in, fan_out] at the start, by one of INITS. Raises ValueError for another."""
    fan_in, fan_out = shape
    match init:
        case "orthogonal":
            return torch.nn.init.orthogonal_(torch.empty(shape), gain, generator=generator)
        case "lecun":
            return torch.randn(shape, generator=generator) / math.sqrt(fan_in)
        case "kaiming":
            return torch.randn(shape, generator=generator) * gain / math.sqrt(fan_in)
        case "xavier":
            bound = math.sqrt(6 / (fan_in + fan_out))
            return (2 * torch.rand(shape, generator=generator) - 1) * bound
    raise ValueError(f"init is '{init}'; choose one of {', '.join(INITS)}")


@checked("network")
@dataclass(frozen=True)
class MLP:
    """Linear layers with an activation between them, and a layer norm before each activation if asked for.

    inputs, outputs, hidden: widths; extra: further inputs, which come last, such as an action's; activation: a key of
    ACTIVATIONS; init: one of INITS for the hidden layers' weights (biases are 0); input_scale: multiplies those of the
    first layer; output_init: one of INITS for the last layer's, of gain 1; output_scale: multiplies those.
    """

    inputs: int
    outputs: int
    extra: int = field(default=0, kw_only=True)
    hidden: Widths = (256, 256)
    activation: Literal["relu", "tanh", "elu", "gelu", "silu"] = "relu"
    layer_norm: bool = False
    init: Literal["orthogonal", "lecun", "kaiming", "xavier"] = "orthogonal"
    input_scale: Positive = 1.0
    output_init: Literal["orthogonal", "lecun", "kaiming", "xavier"] = "orthogonal"
    output_scale: Positive = 1.0

    @property
    def shapes(self) -> Shapes:
        """Name and shape of each parameter, without the member axis."""
        sizes = [self.inputs + self.extra, *self.hidden, self.outputs]
        shapes: Shapes = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            shapes[f"{layer}.weight"] = (fan_in, fan_out)
            shapes[f"{layer}.bias"] = (1, fan_out)
            if self.layer_norm and layer < len(self.hidden):
                shapes[f"{layer}.norm.weight"] = (1, fan_out)
                shapes[f"{layer}.norm.bias"] = (1, fan_out)
        return shapes

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial parameters [K, P] on the CPU, each member's from its own generator."""
        return torch.stack([self._start_one(generator) for generator in generators])

    def _start_one(self, generator: Generator) -> Tensor:
        hidden_gain = math.sqrt(2) if self.activation in ("relu", "elu", "gelu", "silu") else 5 / 3
        parts = []
        for name, shape in self.shapes.items():
            if name.endswith("norm.weight"):
                part = torch.ones(shape)
            elif name.endswith("bias"):
                part = torch.zeros(shape)
            elif name == f"{len(self.hidden)}.weight":
                part = initial_weight(self.output_init, shape, 1.0, generator) * self.output_scale
            else:
                scale = self.input_scale if name == "0.weight" else 1.0
                part = initial_weight(self.init, shape, hidden_gain, generator) * scale
            parts.append(part.flatten())
        return torch.cat(parts)

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """[K, B, inputs + extra] -> [K, B, outputs] with parameters theta [K, P]."""
        part = unflatten(theta, self.shapes)
        activation = ACTIVATIONS[self.activation]
        for layer, width in enumerate(self.hidden):
            x = torch.bmm(x, part[f"{layer}.weight"]) + part[f"{layer}.bias"]
            if self.layer_norm:
                x = F.layer_norm(x, (width,)) * part[f"{layer}.norm.weight"] + part[f"{layer}.norm.bias"]
            x = activation(x)
        layer = len(self.hidden)
        return torch.bmm(x, part[f"{layer}.weight"]) + part[f"{layer}.bias"]

    def numpy(self, theta: Tensor) -> numpy_policy.Layers | None:
        """The same for arrays, with a copy of theta; None where there is no such form, as of classes that inherit."""
        if type(self) is not MLP or self.activation not in numpy_policy.ACTIVATIONS:
            return None
        part = {name: tensor.numpy().copy() for name, tensor in unflatten(theta, self.shapes).items()}
        names = ("weight", "bias", "norm.weight", "norm.bias")
        layers = [[part.get(f"{layer}.{name}") for name in names] for layer in range(len(self.hidden) + 1)]
        return numpy_policy.Layers(layers, self.activation)

    def native(self) -> list[int] | None:
        """The widths of all layers, if `awr_exp.training.native` has code for such ones."""
        usual = type(self) is MLP and self.activation == "relu" and not (self.layer_norm or self.extra)
        return [self.inputs, *self.hidden, self.outputs] if usual else None


class Scalar:
    """One number of each member that is learnt by gradient, such as the logarithm of a temperature; 0 at the start."""

    shapes: Shapes = {"value": (1,)}  # noqa: RUF012

    def start(self, generators: Sequence[Generator]) -> Tensor:
        return torch.zeros(len(generators), 1)
