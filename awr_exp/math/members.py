"""Hyper-parameters of K members."""

from collections.abc import Sequence

import torch
from torch import Tensor

Hyper = float | Sequence[float]
"""One number for all members, or one a member."""


def per_member(value: Hyper, members: int, like: Tensor) -> Tensor:
    """[K, 1] with the dtype and device of `like`. Raises ValueError if there are neither 1 nor K numbers."""
    column = torch.as_tensor(value, dtype=like.dtype, device=like.device).reshape(-1, 1)
    if column.shape[0] not in (1, members):
        raise ValueError(f"{column.shape[0]} values for {members} members")
    return column.expand(members, 1).contiguous()
