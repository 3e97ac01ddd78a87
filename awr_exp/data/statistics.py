"""Statistics of the observations of a data set, read in pieces: it need not fit the memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from awr_exp.math.normalizer import units

if TYPE_CHECKING:
    from awr_exp.data.transitions import Transitions

ROWS, NUMBERS = 262_144, 2**26
"""Rows, and numbers, of a piece at the most."""
ALL = 2**28
"""Numbers up to which every observation counts; of more, about as many, in pieces that are evenly spread."""
PART = 2**18
"""Numbers of such a piece."""


def obs_statistics(data: "Transitions") -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [obs_dim] of the observations, final ones included; see `units`."""
    # In float64: 1M float32 sums would drift.
    zero = torch.zeros(data.stored.obs_dim, dtype=torch.float64, device=data.held.device)
    count = sum(len(piece) for piece in _pieces(data))
    mean = sum((piece.double().sum(0) for piece in _pieces(data)), zero) / count
    squares = ((piece.double() - mean).square().sum(0) for piece in _pieces(data))
    found = units(mean, sum(squares, zero) / count, data.stored.entries)
    widths = [entry.width for entry in data.stored.entries]
    every = (torch.cat([part.repeat(data.info.history) for part in each.split(widths)]) for each in found)
    mean, std = (each.float().to(data.device) for each in every)
    return mean, std


def _pieces(data: "Transitions") -> Iterator[Tensor]:
    """Single observations [n, obs_dim], all of them or some."""
    rows, width = len(data) + len(data.lengths), data.stored.obs_dim
    size = step = max(1, min(ROWS, NUMBERS // width))
    if rows * width > ALL:
        size = max(1, PART // width)
        step = size * rows * width // ALL
    for begin in range(0, rows, step):
        yield data.schema.read(data.between(begin, min(begin + size, rows)), "obs")
