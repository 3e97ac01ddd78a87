"""A network of two: an encoder makes features of observations, and a trunk makes outputs of these."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from awr_exp.networks.mlp import MakeNetwork, Shapes, size
from awr_exp.ranges import Count, checked


@checked("network")
class Encoded:
    """trunk(encoder(x), extra) as one pure function, whose parameters are the encoder's followed by the trunk's.

    encoder, trunk: make a network from `inputs` and `outputs`; features: the encoder's outputs, which pass a ReLU
    before the trunk; extra: inputs that pass the encoder by, such as an action's; options: further ones of the trunk.
    Each policy and critic has an encoder of its own.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        encoder: MakeNetwork,
        trunk: MakeNetwork,
        features: Count = 64,
        extra: int = 0,
        **options: Any,
    ) -> None:
        self.inputs, self.extra = inputs, extra
        self.encoder = encoder(inputs=inputs, outputs=features)
        self.trunk = trunk(inputs=features, outputs=outputs, extra=extra, **options)

    @property
    def shapes(self) -> Shapes:
        parts = {"encoder": self.encoder, "trunk": self.trunk}
        return {f"{part}.{name}": shape for part, network in parts.items() for name, shape in network.shapes.items()}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial parameters [K, P] on the CPU."""
        return torch.cat([self.encoder.start(generators), self.trunk.start(generators)], 1)

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """[K, B, inputs + extra] -> [K, B, outputs] with parameters theta [K, P]."""
        encoding = size(self.encoder.shapes)
        encoder, trunk = theta.split([encoding, theta.shape[1] - encoding], 1)
        obs, extra = x.split([self.inputs, self.extra], -1)
        features = torch.relu(self.encoder(encoder, obs))
        return self.trunk(trunk, torch.cat([features, extra], -1))
