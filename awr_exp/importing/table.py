"""What a file of any format is read as: named columns, a row a step."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

Chunk = tuple[Mapping[str, NDArray[Any]], int]
"""Columns [n, ...] of consecutive rows, and the position after them."""
Shapes = Mapping[str, tuple[int, ...]]
"""The shape of one row of each column."""


@dataclass(frozen=True)
class Table:
    """A file that is open.

    size: the last position; chunks: what gives the rows of the named columns from a position on, where 0 is the first
    and `row` the number of rows before it, for what is said of one; apart: whether each chunk is an episode.
    """

    path: Path
    shapes: Shapes
    size: int
    chunks: Callable[[Sequence[str], int, int], Iterator[Chunk]]
    apart: bool = False
