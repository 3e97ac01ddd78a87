"""Hyper-parameters of K members.

A constructor that annotates a parameter with one of these types, or with `awr_exp.ranges.PerMember` of a range, takes a
list of K for it: such parameters may differ between the members of one model, all others have to agree.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

from awr_exp.ranges import PerMember
from awr_exp.types import Metrics

Hyper = PerMember[float]
"""One number for all members, or one a member."""
Limit = PerMember[float | None]
"""One upper bound for all members, or one a member; None is no bound."""
Switch = PerMember[bool]
"""On or off for all members, or for each."""

T = TypeVar("T")


def per_member(value: Hyper, members: int, like: Tensor) -> Tensor:
    """[K, 1] with the dtype and device of `like`. Raises ValueError if there are neither 1 nor K numbers."""
    column = torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1)
    if column.shape[0] not in (1, members):
        raise ValueError(f"{column.shape[0]} values for {members} members")
    return column.expand(members, 1).contiguous()


def filled(value: Any, usual: float) -> Hyper:
    """The value, or the values of members, with what is usual for None."""
    if isinstance(value, Sequence):
        return [usual if one is None else one for one in value]
    return usual if value is None else value


def no_limit(value: Limit) -> Hyper:
    """The limits, with inf for None."""
    return filled(value, float("inf"))


class Shardable:
    """An object with tensors [K, ...] of K members, and maybe with parts that have such ones."""

    def shard(self, members: slice) -> Self:
        """A copy with the chosen members' rows, in the same memory."""
        part = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                # Their data, and no view: writing to some members' rows disturbs no gradient of others.
                setattr(part, name, value[members].data)
            elif hasattr(value, "shard"):
                setattr(part, name, value.shard(members))
        return part


class Stateful(Shardable):
    """A part of an agent that learns something of each member, such as a weighting with a running scale.

    learnt: the names of what it learns, tensors [K, ...] that `start` makes and that are changed in place. They are
    saved, resumed and divided among members as parameters are. Its other tensors [K, ...] are divided alone: they are
    hyper-parameters of members. begins_anew: whether it begins anew where a state has nothing of it. several: whether
    it may be called with [S, K, ...], which it takes as S batches [K, ...] one after another.
    """

    learnt: tuple[str, ...] = ()
    begins_anew = True
    several = False

    def start(self, column: Tensor) -> Self:
        """A copy with its tensors as they are at the start, for the K members of a column [K, 1], and on its device."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """What it has learnt, by name."""
        return {name: getattr(self, name) for name in self.learnt}

    def report(self) -> Metrics:
        """What there is to report of its last call, [K] each."""
        return {}

    def warnings(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """(name, sentence) of what it, or what the metrics of one report, say is wrong with a member."""
        yield from ()


NOTHING = Stateful()


def started(part: T, column: Tensor) -> T:
    """The part, with its state for the members of a column [K, 1] if it has any."""
    return part.start(column) if isinstance(part, Stateful) else part


def about(part: object) -> Stateful:
    """What can be asked for reports and warnings: the part, or, where it has no state, one that has neither."""
    return part if isinstance(part, Stateful) else NOTHING
