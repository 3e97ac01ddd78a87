"""Hyper-parameters of K members.

A constructor that annotates a parameter with one of these types, or with `awr_exp.ranges.PerMember` of a range, takes a
list of K for it: such parameters may differ between the members of one model, all others have to agree.
"""

import copy
from collections.abc import Sequence
from typing import Self, TypeVar

import torch
from torch import Tensor

from awr_exp.ranges import PerMember

Hyper = PerMember[float]
"""One number for all members, or one a member."""
Limit = PerMember[float | None]
"""The same of upper bounds; None is no bound."""
Switch = PerMember[bool]
"""On or off for all members, or for each."""

T = TypeVar("T")


def per_member(value: Hyper, members: int, like: Tensor) -> Tensor:
    """[K, 1] with the dtype and device of `like`. Raises ValueError if there are neither 1 nor K numbers."""
    column = torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1)
    if column.shape[0] not in (1, members):
        raise ValueError(f"{column.shape[0]} values for {members} members")
    return column.expand(members, 1).contiguous()


def no_limit(value: Limit) -> Hyper:
    """None as inf."""
    if isinstance(value, Sequence):
        return [float("inf") if limit is None else limit for limit in value]
    return float("inf") if value is None else value


def sharded(owner: T, members: slice) -> T:
    """A copy of an object with the chosen members' rows of each of its tensors [K, ...], in the same memory."""
    part = copy.copy(owner)
    # Their data, and no view: writing to some members' disturbs no gradient of others.
    own = {name: value[members].data for name, value in vars(owner).items() if isinstance(value, Tensor)}
    vars(part).update(own)
    return part


class Stateful:
    """A part of an agent that learns something of each member, such as a weighting with a running scale.

    learnt: the names of what it learns, tensors [K, ...] that `start` makes and that are changed in place. They are
    saved, resumed and divided among members as parameters are. Its other tensors [K, ...] are divided alone: they are
    hyper-parameters of members.
    """

    learnt: tuple[str, ...] = ()

    def start(self, column: Tensor) -> Self:
        """A copy with its tensors as they are at the start, for the K members of a column [K, 1], and on its device."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """What it has learnt, by name."""
        return {name: getattr(self, name) for name in self.learnt}

    def sharded(owner: T, members: slice) -> T:
    """A copy of an object with the chosen members' rows of its tensors [K, ...], in the same memory, and of its parts."""
    part = copy.copy(owner)
    for name, value in vars(owner).items():
        if isinstance(value, Tensor):
            # Its data, and no view: writing to some members' disturbs no gradient of others.
            setattr(part, name, value[members].data)
        elif hasattr(value, "shard"):
            setattr(part, name, value.shard(members))
    return part


class Stateful:
    """A part of an agent that learns something of each member, such as a weighting with a running scale.

    learnt: the names of what it learns, tensors [K, ...] that `start` makes and that are changed in place. They are
    saved, resumed and divided among members as parameters are. Its other tensors [K, ...] are divided alone: they are
    hyper-parameters of members.
    """

    learnt: tuple[str, ...] = ()

    def start(self, column: Tensor) -> Self:
        """A copy with its tensors as they are at the start, for the K members of a column [K, 1], and on its device."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """What it has learnt, by name."""
        return {name: getattr(self, name) for name in self.learnt}

    def shard(self, members: slice) -> Self:
        """The chosen members' part, in the same memory."""
        return sharded(self, members)


def started(part: T, column: Tensor) -> T:
    """The part, with its state for the members of a column [K, 1] if it has any."""
    return part.start(column) if isinstance(part, Stateful) else part
