"""Rows of named columns in one tensor, each column in its own type: what data sets, replays and recordings are made of.

A row is one piece of memory, so that one gather fetches all of its columns.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.layout import Entries, Entry
from awr_exp.types import Batch, Spec

STORED = ("obs", "action", "reward", "terminated", "truncated")
"""Columns of a data set, where the next observation of a row is that of the row below it, and of a replay."""
TRANSITION = ("obs", "next_obs", *STORED[1:])
"""Columns of a recording."""
SINGLE = {"reward": torch.float32, "terminated": torch.bool, "truncated": torch.bool, "mark": torch.int64}
"""Columns of one number a row, and what they are read as."""


class Schema:
    """Says where the columns `names` of rows [..., width] lie. Rows are float32 tensors, and so are most columns.

    An observation, or a part of it, that is uint8 in its space stays so: four of its numbers lie in what is one number
    of the row. A part is reached by its path as well, such as "obs", "camera". Flags are kept as 0 and 1 and discrete
    actions as whole numbers of float32.
    """

    def __init__(self, spec: Spec, names: Sequence[str] = TRANSITION) -> None:
        self.types = SINGLE | ({"action": torch.int64} if spec.discrete else {})
        """What columns that are no float32 are read as."""
        self.single = SINGLE.keys() | ({"action"} if spec.action_shape == () else set())
        """Columns that have no axis of their own."""
        self.pieces: dict[tuple[str | int, ...], list[tuple[torch.dtype, int, int]]] = {}
        """The type, first number in a row and size of each piece of a column, and of a part of one by its path."""
        self.columns: dict[str, int] = {}
        """The first of a row's numbers that each column takes."""
        self.width = 0
        for name in names:
            size = spec.action_dim if name == "action" else 1
            self._add(name, spec.entries if name in ("obs", "next_obs") else (Entry((), (size,)),))

    def _add(self, name: str, entries: Entries) -> None:
        """Add a column of these parts to the row."""
        self.columns[name] = self.width
        end, pieces = self.width * torch.float32.itemsize, []
        for kept, run in groupby(entries, lambda entry: entry.kept):
            dtype: torch.dtype = getattr(torch, kept)
            begin = first = -(-end // dtype.itemsize)
            for entry in run:
                self.pieces[name, *entry.path] = [(dtype, first, entry.width)]
                first += entry.width
            pieces.append((dtype, begin, first - begin))
            end = first * dtype.itemsize
        self.pieces[name,] = pieces
        self.width = -(-end // torch.float32.itemsize)

    def views(self, rows: Tensor, name: str, *path: str | int) -> list[Tensor]:
        """A column, or a part of it, as it lies in rows [..., width]: [..., n] of each type, to read and write."""
        return [
            (rows if dtype == rows.dtype else rows.view(dtype)).narrow(-1, first, count)
            for dtype, first, count in self.pieces[name, *path]
        ]

    def view(self, rows: Tensor, name: str, *path: str | int) -> Tensor:
        """The view of a column of one type, see `views`."""
        (view,) = self.views(rows, name, *path)
        return view

    def read(self, rows: Tensor, name: str, index: Tensor | None = None) -> Tensor:
        """A column as `Batch` has it, of rows [..., width] or of those at `index` [n] alone.

        An observation whose parts are of several types is float32.
        """
        views = [rows.select(-1, self.columns[name])] if name in self.single else self.views(rows, name)
        if index is not None:
            views = [view.index_select(0, index) for view in views]
        values = views[0] if len(views) == 1 else torch.cat(views, -1)
        return values.to(self.types[name]) if name in self.types else values

    def batch(self, rows: Tensor, **others: Tensor) -> Batch:
        """The batch of rows [K, B, width], with other fields [K, B, ...] beside their columns or in place of these."""
        return Batch(**{name: self.read(rows, name) for name in self.columns if name not in others}, **others)

    def differ(self, rows: Tensor, others: Tensor, name: str) -> Tensor:
        """Whether a column of rows [..., width] is another one than that of other rows, [...] bool."""
        pairs = zip(self.views(rows, name), self.views(others, name), strict=True)
        return reduce(torch.logical_or, [(own != other).any(-1) for own, other in pairs])

    def write(self, rows: Tensor, values: Mapping[str, Any], names: Iterable[str] | None = None) -> Tensor:
        """Fill rows [..., width] with tensors or arrays [..., n], or [...] where a row has one; the rows.

        names: of the columns that are filled, None: all of them. Raises UserError for numbers that the type of their
        column does not have.
        """
        for name in self.columns if names is None else names:
            own, begin = torch.as_tensor(values[name]), 0
            if name in self.single:
                rows.select(-1, self.columns[name]).copy_(own)
                continue
            for view in self.views(rows, name):
                part = own[..., begin : begin + view.shape[-1]]
                begin += view.shape[-1]
                view.copy_(part)
                if not view.is_floating_point() and bool((view.to(part) != part).any()):
                    raise UserError(
                        "observations hold numbers that are no uint8, as their space says they are: give the space the "
                        "type and bounds of what is in it"
                    )
        return rows


def chosen(columns: Mapping[str, Tensor | None], index: Tensor) -> dict[str, Tensor]:
    """What columns [K, N] hold at index [K, B], or at [1, B] for all members; those that are None are left out."""
    return {
        name: column.gather(1, index.expand(len(column), -1)) for name, column in columns.items() if column is not None
    }
