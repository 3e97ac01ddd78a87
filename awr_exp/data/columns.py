"""What is said of many numbers in a few: pure functions, which take what is large in pieces."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NICE = (1, 2, 2.5, 5, 10)
"""Widths of bins, times a power of ten, whose edges people can read."""


@dataclass(frozen=True)
class Columns:
    """What there is in the columns of a table [count, W]: low, high, mean and squares, [W] of float64.

    squares: the summed squared deviations from the mean.
    """

    count: int
    low: Tensor
    high: Tensor
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> "Columns":
        """Those of values [N, W], N at least 1."""
        exact = values.double()
        mean = exact.mean(0)
        return cls(len(exact), exact.amin(0), exact.amax(0), mean, (exact - mean).square().sum(0))

    def __add__(self, other: "Columns") -> "Columns":
        """Those of both tables' rows (Chan, Golub and LeVeque 1979)."""
        count, apart = self.count + other.count, other.mean - self.mean
        return Columns(
            count,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart.square() * (self.count * other.count / count),
        )

    @property
    def std(self) -> Tensor:
        """[W], of the rows as they are; exactly 0 where all are equal."""
        return torch.where(self.low == self.high, 0, (self.squares / self.count).sqrt())

    @property
    def farthest(self) -> Tensor:
        """[W], how far from the mean a number is at the most, in standard deviations; 0 where all are equal."""
        reach = torch.maximum(self.high - self.mean, self.mean - self.low)
        return torch.where(self.std > 0, reach / self.std, 0)


def columns(pieces: Iterable[Tensor]) -> Columns:
    """Those of a table whose rows come in pieces [N, W], of which there is at least one."""
    return reduce(Columns.__add__, map(Columns.of, pieces))


def on_bounds(action: Tensor, low: Tensor, high: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Whether numbers of actions [N, n] are at or beyond their low, and their high bounds [n].

    tolerance: how far from a bound is still on it, as a share of the distance of the two. Where these are equal, an
    entry has no choice, and is on none.
    """
    span = high - low
    slack = torch.where(span.isfinite(), tolerance * span, 0)
    return (action <= low + slack) & (span > 0), (action >= high - slack) & (span > 0)


def histogram(values: NDArray[np.float64], bins: int) -> tuple[list[float], list[int]]:
    """Edges that people can read, and the counts between them, of about `bins` bins; the last one has its upper edge.

    Numbers that are all equal, up to rounding, are one bin without a width.
    """
    low, high = float(values.min()), float(values.max())
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        return [low, high], [len(values)]
    rough = (high - low) / bins
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(power * nice for nice in NICE if power * nice >= rough * (1 - 1e-9))
    first, last = math.floor(low / width), math.ceil(high / width)
    edges = [float(f"{width * place:.12g}") for place in range(first, max(last, first + 1) + 1)]
    # Rounding must leave no number outside.
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    counts, _ = np.histogram(values, edges)
    return edges, counts.tolist()


def keys(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """A number for each row [N, W], which is the same for rows that are the same to the bit."""
    whole = np.ascontiguousarray(rows)
    texts = whole.view(np.dtype((np.void, whole.shape[1] * whole.itemsize))).ravel().tolist()
    return np.fromiter(map(hash, texts), np.int64, len(texts))


def repeated(of_rows: NDArray[np.int64]) -> int:
    """How many rows are the same as an earlier one, by their keys."""
    return len(of_rows) - len(np.unique(of_rows))


def falls_between(edges: list[float]) -> list[str]:
    """The bins of a histogram in words: "-5 to 0"."""
    if len(edges) == 2 and edges[0] == edges[1]:
        return [f"{edges[0]:g}"]
    return [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
