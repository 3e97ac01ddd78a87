"""What K members that train as one model have, whatever they learn: hyper-parameters, networks, and a state."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from awr_exp.math.members import Hyper, Shardable, Stateful, per_member
from awr_exp.math.optimizers import Net
from awr_exp.networks.mlp import size
from awr_exp.seeding import generator

AVERAGE = "actor.average"
"""The name in a state of the average of the parameters of the network that is called actor."""
VALUE_CHUNK = {"cpu": 4_096, "cuda": 65_536}
"""Rows, over all members, that pass a network at once outside an update: on a CPU activations stay in the cache, and
below the size from which every allocation is new memory of the system's."""
BLOCK = 16
"""Each member has a multiple of so many of these rows, however many members there are: what is drawn by blocks of them
does not depend on that."""


class Members(Shardable):
    """K members that share an architecture and differ in seed and hyper-parameters.

    seeds: one a member, K in all. What they learn is in their networks and in parts with a state.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str, dtype: torch.dtype) -> None:
        self.seeds, self.device, self.dtype = list(seeds), torch.device(device), dtype

    @property
    def members(self) -> int:
        return len(self.seeds)

    @property
    def chunk(self) -> int:
        """Rows of each member that pass a network at once outside an update, a multiple of BLOCK."""
        return max(1, VALUE_CHUNK[self.device.type] // self.members // BLOCK) * BLOCK

    def hyper(self, value: Hyper) -> Tensor:
        """The value as a column [K, 1] on the members' device."""
        return per_member(value, self.members, torch.empty(0, device=self.device, dtype=self.dtype))

    def net(self, name: str, module: Any, averaged: bool = False) -> Net:
        """A network with fresh parameters, each member's from its seed and the network's name alone."""
        generators = [generator(seed, "init", name) for seed in self.seeds]
        theta = module.start(generators) if generators else torch.empty(0, size(module.shapes))
        return Net.start(module, theta.to(self.device, self.dtype), averaged)

    def shard(self, members: slice) -> Self:
        """The chosen members alone, in the same memory: what they learn, these have learnt."""
        part = super().shard(members)
        part.seeds = self.seeds[members]
        return part

    @property
    def networks(self) -> dict[str, Net]:
        """All networks by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Net)}

    @property
    def alive(self) -> Tensor:
        """[K] bool: False for a member frozen by a gradient that was not finite."""
        return torch.cat([network.alive for network in self.networks.values()], 1).bool().all(1)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that training changes, as tensors whose first axis is the member: a row is a single run."""
        owners = [(name, value) for name, value in vars(self).items() if isinstance(value, Net | Stateful)]
        return {f"{name}.{part}": tensor for name, owner in owners for part, tensor in owner.tensors().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a `state_dict` in place; an average that it lacks begins where its network is, and a part as new.

        Raises ValueError that names what is missing, of another shape, or no number.
        """
        begun = {f"{name}.average": state[f"{name}.theta"] for name in self.networks if f"{name}.theta" in state}
        anew: dict[str, Tensor] = {}
        for name, part in vars(self).items():
            if isinstance(part, Stateful) and part.begins_anew:
                own = {f"{name}.{key}": tensor for key, tensor in part.tensors().items()}
                # As a whole: what was counted for another average is nothing to begin this one with.
                anew |= {} if own.keys() <= state.keys() else own
        state = begun | state | anew
        for name, tensor in self.state_dict().items():
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise ValueError(f"'{name}' should be {tuple(tensor.shape)}, found {found}")
            if not state[name].is_floating_point() or state[name].isnan().any():
                raise ValueError(f"'{name}' holds what are no numbers")
            tensor.copy_(state[name])
