"""Rows of named columns in one tensor, each column in its own type: what data sets, replays and recordings are made of.

A row is one piece of memory, so that one gather fetches all of its columns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.types import Batch, Spec

STORED = ("obs", "action", "reward", "terminated", "truncated")
"""Schema of a data set, where the next observation of a row is that of the row below it."""
TRANSITION = ("obs", "next_obs", *STORED[1:])
"""Schema of what has no order yet."""
SINGLE = {"reward": torch.float32, "terminated": torch.bool, "truncated": torch.bool, "mark": torch.int64}
"""Schema of one number a row, and what they are read as."""

Path = tuple[str | int, ...]
"""The name of a column, or that and the path of a part of an observation."""


class Schema:
    """Where the columns `names` of rows [..., width] lie. Rows are float32 tensors, and so are most columns.

    An observation, or a part of it, that is uint8 in its space stays so: four of its numbers lie in what is one number
    of the row. A part is reached by its path as well, such as "obs", "camera". Flags are kept as 0 and 1 and discrete
    actions as whole numbers of float32.
    """

    def __init__(self, spec: Spec, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.single = SINGLE | ({"action": torch.int64} if spec.discrete else {})
        self.places: dict[Path, list[tuple[torch.dtype, slice]]] = {}
        """Of each column: numbers of a row, once it is seen as numbers of that type."""
        size = 0
        for name in names:
            parts: list[tuple[Path, str, int]] = [((), "float32", spec.action_dim if name == "action" else 1)]
            if name in ("obs", "next_obs"):
                parts = [(entry.path, entry.kept, entry.width) for entry in spec.entries]
            for path, kept, numbers in parts:
                dtype: torch.dtype = getattr(torch, kept)
                start = -(-size // dtype.itemsize)
                size = (start + numbers) * dtype.itemsize
                for key in {(name,), (name, *path)}:
                    places = self.places.setdefault(key, [])
                    # Neighbours of one type are one place.
                    joins = places and (places[-1][0], places[-1][1].stop) == (dtype, start)
                    begin = places.pop()[1].start if joins else start
                    places.append((dtype, slice(begin, start + numbers)))
        self.width = -(-size // torch.float32.itemsize)

    def views(self, rows: Tensor, *key: str | int) -> list[Tensor]:
        """Column `key`, or a part of it, as it lies in rows [..., width]: [..., n] for each type, to read and write."""
        return [(rows if dtype == rows.dtype else rows.view(dtype))[..., own] for dtype, own in self.places[key]]

    def view(self, rows: Tensor, *key: str | int) -> Tensor:
        """As `views`, of a column of one type."""
        (view,) = self.views(rows, *key)
        return view

    def read(self, rows: Tensor, name: str, index: Tensor | None = None) -> Tensor:
        """Column `name` as `Batch` has it, of rows [..., width] or of those at `index` [n] alone.

        An observation whose parts are of several types is float32.
        """
        views = self.views(rows, name)
        if index is not None:
            views = [view.index_select(0, index) for view in views]
        values = views[0] if len(views) == 1 else torch.cat(views, -1)
        return values[..., 0].to(self.single[name]) if name in self.single else values

    def batch(self, rows: Tensor, **others: Tensor) -> Batch:
        """All columns of rows [K, B, width], and others [K, B, ...]."""
        return Batch(**{name: self.read(rows, name) for name in self.names}, **others)

    def write(self, rows: Tensor, values: Mapping[str, Any]) -> Tensor:
        """Fill rows [..., width] with tensors or arrays [..., n], or [...] where a row has one; the rows.

        Raises UserError for numbers that the type of their column does not have.
        """
        for name in self.names:
            own = torch.as_tensor(values[name])
            views = self.views(rows, name)
            parts = (own.unsqueeze(-1) if name in self.single else own).split([v.shape[-1] for v in views], -1)
            for view, part in zip(views, parts, strict=True):
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
