"""A network of observations with images: an encoder for each image, and a trunk that sees what they found."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from awr_exp.errors import UserError
from awr_exp.layout import Entries
from awr_exp.networks.convolutions import MakeImageNetwork
from awr_exp.networks.frames import KIND, frames_of
from awr_exp.networks.mlp import MakeNetwork, Shapes, size
from awr_exp.ranges import Channels, Count, checked


@checked("network")
class Images:
    """trunk(encoder(image) of each image, all else) as one pure function of theta [K, P].

    observation: the parts of an observation, of which those with two axes and more are images; encoder: makes a network
    of an image from `frame` and `outputs`; features: its outputs, which pass a ReLU before the trunk; channels: see
    `Channels`; extra: inputs that are no part of an observation, such as an action's; options: further ones of the
    trunk. Each policy and critic has encoders of its own. Raises UserError where there is no image.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        observation: Entries,
        encoder: MakeImageNetwork,
        trunk: MakeNetwork,
        features: Count = 256,
        channels: Channels = "auto",
        extra: int = 0,
        **options: Any,
    ) -> None:
        self.widths = [*(entry.width for entry in observation), extra]
        self.frames = frames_of(observation, channels)
        if not self.frames:
            raise UserError(
                f"a network of images has nothing to look at in {inputs} numbers: {KIND}; choose network=mlp"
            )
        self.encoders: list[Any] = [encoder(frame=frame, outputs=features) for frame in self.frames.values()]
        seen = features * len(self.frames) + sum(
            self.widths[n] for n in range(len(observation)) if n not in self.frames
        )
        self.trunk: Any = trunk(inputs=seen, outputs=outputs, extra=extra, **options)
        self.sizes = [size(part.shapes) for part in (*self.encoders, self.trunk)]

    @property
    def shapes(self) -> Shapes:
        parts = {**{f"encoder{n}": one for n, one in enumerate(self.encoders)}, "trunk": self.trunk}
        return {f"{part}.{name}": shape for part, network in parts.items() for name, shape in network.shapes.items()}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial parameters [K, P] on the CPU."""
        return torch.cat([part.start(generators) for part in (*self.encoders, self.trunk)], 1)

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """[K, B, inputs + extra] -> [K, B, outputs] with parameters theta [K, P]."""
        *encoders, trunk = theta.split(self.sizes, 1)
        columns = x.split(self.widths, -1)
        found = [
            torch.relu(network(own, frame.pixels(columns[n])))
            for network, own, (n, frame) in zip(self.encoders, encoders, self.frames.items(), strict=True)
        ]
        others = [column for n, column in enumerate(columns) if n not in self.frames]
        return self.trunk(trunk, torch.cat([*found, *others], -1))
