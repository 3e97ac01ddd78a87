"""A network: blocks that add to what they are given (He et al. 2016), as a function of flat parameters."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from awr_exp.networks.mlp import Shapes, initial_weight, unflatten


class Residual:
    """x + relu(x W + b), `blocks` times, between a linear layer in and one out.

    extra: further inputs, which come last, such as an action's; width: numbers that a block has.
    """

    def __init__(self, inputs: int, outputs: int, extra: int = 0, width: int = 64, blocks: int = 2) -> None:
        sizes = {"in": (inputs + extra, width)} | {str(n): (width, width) for n in range(blocks)}
        sizes["out"] = (width, outputs)
        self.layers = list(sizes)
        self.shapes: Shapes = {}
        for name, (fan_in, fan_out) in sizes.items():
            self.shapes |= {f"{name}.weight": (fan_in, fan_out), f"{name}.bias": (1, fan_out)}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial parameters [K, P], each member's from its own generator."""

        def one(generator: Generator) -> Tensor:
            parts = [
                initial_weight("lecun", shape, 1.0, generator) if name.endswith("weight") else torch.zeros(shape)
                for name, shape in self.shapes.items()
            ]
            return torch.cat([part.flatten() for part in parts])

        return torch.stack([one(generator) for generator in generators])

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """[K, B, inputs + extra] to [K, B, outputs] with parameters theta [K, P]."""
        part = unflatten(theta, self.shapes)
        first, *blocks, last = self.layers
        x = torch.bmm(x, part[f"{first}.weight"]) + part[f"{first}.bias"]
        for block in blocks:
            x = x + torch.relu(torch.bmm(x, part[f"{block}.weight"]) + part[f"{block}.bias"])
        return torch.bmm(x, part[f"{last}.weight"]) + part[f"{last}.bias"]
