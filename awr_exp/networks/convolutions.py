"""Convolutional networks of K members as pure functions of their flat parameters.

Convolutions are of each member by itself: an image keeps a core busy, and one convolution in K groups is slower.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from awr_exp.errors import UserError
from awr_exp.networks.frames import Frame
from awr_exp.networks.mlp import Shapes, initial_weight, unflatten
from awr_exp.ranges import Count, Widths, checked


class ImageNetwork(Protocol):
    """A pure function of its parameters theta [K, P], made for a `frame` and a number of `outputs`."""

    @property
    def shapes(self) -> Shapes: ...

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial parameters [K, P] on the CPU, each member's from its own generator."""

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """[K, B, channels, height, width] -> [K, B, outputs]."""


MakeImageNetwork = Callable[..., ImageNetwork]
Part = Mapping[str, Tensor]
"""Parameters by name."""


class Convolutional:
    """What the networks here share: a linear layer over the features of an image.

    A class of this kind has `shapes`, with that layer as `out`, and `features` of one member.
    """

    shapes: Shapes

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial parameters [K, P] on the CPU: orthogonal weights, and no biases."""

        def one(generator: Generator) -> Tensor:
            return torch.cat([initial(shape, generator).flatten() for shape in self.shapes.values()])

        return torch.stack([one(generator) for generator in generators])

    def features(self, part: Part, x: Tensor) -> Tensor:
        """[B, channels, height, width] -> [B, ...] by the parameters of one member."""
        raise NotImplementedError

    def __call__(self, theta: Tensor, images: Tensor) -> Tensor:
        """[K, B, channels, height, width] -> [K, B, outputs] with parameters theta [K, P]."""
        part = unflatten(theta, self.shapes)
        members = [{name: tensor[k] for name, tensor in part.items()} for k in range(len(theta))]
        found = [self.features(own, x) for own, x in zip(members, images, strict=True)]
        return torch.bmm(torch.stack(found).flatten(2), part["out.weight"]) + part["out.bias"]


def initial(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """A parameter of a convolution [out, in, k, k] or of a linear layer [in, out] at the start; a bias is 0."""
    if len(shape) == 4:
        fan_in = math.prod(shape[1:])
        return initial_weight("orthogonal", (fan_in, shape[0]), math.sqrt(2), generator).T.reshape(shape)
    if shape[0] == 1:
        return torch.zeros(shape)
    return initial_weight("orthogonal", (shape[0], shape[1]), math.sqrt(2), generator)


def convolve(part: Part, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, part[f"{name}.weight"], part[f"{name}.bias"].squeeze(0), stride, padding)


@checked("network.encoder")
class CNN(Convolutional):
    """Convolutions with a ReLU after each, and a linear layer (Mnih et al. 2015).

    filters, kernels, strides: of each convolution. Raises UserError where there is nothing left of an image.
    """

    def __init__(
        self,
        frame: Frame,
        outputs: int,
        filters: Widths = (32, 64, 64),
        kernels: Widths = (8, 4, 3),
        strides: Widths = (4, 2, 1),
    ) -> None:
        if not len(filters) == len(kernels) == len(strides):
            raise UserError(
                f"network.encoder has {len(filters)} filters, {len(kernels)} kernels and {len(strides)} strides: "
                "give each convolution one of them"
            )
        self.strides, self.shapes, left = strides, {}, [frame.height, frame.width]
        for layer, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            left = [(side - kernel) // stride + 1 for side in left]
            fan_in, fan_out = [frame.channels, *filters][layer : layer + 2]
            self.shapes |= {f"{layer}.weight": (fan_out, fan_in, kernel, kernel), f"{layer}.bias": (1, fan_out)}
        if min(left) < 1:
            raise UserError(
                f"network.encoder: kernels of {list(kernels)} by strides of {list(strides)} leave nothing of an image "
                f"of {frame.height} x {frame.width}: choose smaller ones, or network=impala, which takes any image"
            )
        self.shapes |= {"out.weight": (math.prod(left) * filters[-1], outputs), "out.bias": (1, outputs)}

    def features(self, part: Part, x: Tensor) -> Tensor:
        for layer, stride in enumerate(self.strides):
            x = torch.relu(convolve(part, str(layer), x, stride))
        return x


@checked("network.encoder")
class Impala(Convolutional):
    """Sections of a convolution, a pooling and two residual blocks, and a linear layer (Espeholt et al. 2018).

    widths: filters of each section, after which an image is half as high and wide; blocks: residual ones a section.
    """

    def __init__(self, frame: Frame, outputs: int, widths: Widths = (16, 32, 32), blocks: Count = 2) -> None:
        self.sections, self.blocks, self.shapes = len(widths), blocks, {}
        left = [frame.height, frame.width]
        for section, (fan_in, fan_out) in enumerate(pairwise([frame.channels, *widths])):
            left = [(side + 1) // 2 for side in left]
            self._add(f"{section}", fan_in, fan_out)
            for block in range(blocks):
                self._add(f"{section}.{block}.one", fan_out, fan_out)
                self._add(f"{section}.{block}.two", fan_out, fan_out)
        self.shapes |= {"out.weight": (math.prod(left) * widths[-1], outputs), "out.bias": (1, outputs)}

    def _add(self, name: str, fan_in: int, fan_out: int) -> None:
        self.shapes |= {f"{name}.weight": (fan_out, fan_in, 3, 3), f"{name}.bias": (1, fan_out)}

    def features(self, part: Part, x: Tensor) -> Tensor:
        for section in range(self.sections):
            x = F.max_pool2d(convolve(part, f"{section}", x, padding=1), 3, 2, 1)
            for block in range(self.blocks):
                inner = convolve(part, f"{section}.{block}.one", torch.relu(x), padding=1)
                x = x + convolve(part, f"{section}.{block}.two", torch.relu(inner), padding=1)
        return torch.relu(x)
