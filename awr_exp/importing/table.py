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


def place(path: Path, column: str, row: int) -> str:
    """What a row, counted from 0, is called in a column of a file."""
    return f"{path}, column {column}, row {row + 1}"


def placed(path: Path, column: str, begin: int) -> Callable[[int], str]:
    """What names the rows of a piece of a column that begins in this row."""
    return lambda row: place(path, column, begin + row)


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
