"""Losses, one number a member: [K, B] in, [K] out. A wrong shape is refused instead of broadcast."""

import torch
from torch import Tensor


def mean_squared_error(value: Tensor, target: Tensor) -> Tensor:
    """[K] from value and target [K, B]."""
    _same_shape(value, target)
    return (value - target).square().mean(-1)


def expectile(difference: Tensor, share: Tensor) -> Tensor:
    """Mean of |share - 1(u < 0)| u^2 (Kostrikov et al. 2022, eq. 4): [K] from differences u [K, B] and share [K, 1]."""
    return (torch.where(difference < 0, 1 - share, share) * difference.square()).mean(-1)


def weighted(loss: Tensor, weight: Tensor) -> Tensor:
    """Mean of w times the loss, which is the actor's: [K] from [K, B] each."""
    _same_shape(loss, weight)
    return (weight * loss).mean(-1)


def explained_variance(value: Tensor, target: Tensor) -> Tensor:
    """[K]: 1 - Var(target - V) / Var(target). 1 is a perfect critic, 0 one that knows only the mean.

    At least -1: where all targets are alike, one batch would else decide the mean of many.
    """
    _same_shape(value, target)
    left, whole = (each.var(-1, correction=0) for each in (target - value, target))
    share = left / whole.clamp(min=torch.finfo(target.dtype).tiny)
    return (1 - share).clamp(min=-1)


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.dim() != 2:
        raise ValueError(f"expected two tensors [K, B], got {tuple(a.shape)} and {tuple(b.shape)}")
