"""HDF5: flat arrays, as of D4RL, or a group of arrays for each episode, as of robomimic."""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py

from awr_exp.errors import UserError
from awr_exp.importing.table import Chunk, Table

ROWS = 65_536
"""Rows that are read at once."""


def opened(path: Path, stack: ExitStack) -> Table:
    """The table of an HDF5 file; arrays in groups are columns with a path, such as obs/object."""
    file = stack.enter_context(h5py.File(path))
    groups = _episodes(file)
    shapes = {name: data.shape[1:] for name, data in _arrays(groups[0] if groups else file).items()}
    if groups:
        return Table(path, shapes, len(groups), lambda *given: _by_group(path, groups, *given), apart=True)
    longest = max((len(data) for data in _arrays(file).values()), default=0)
    return Table(path, shapes, longest, lambda *given: _flat(file, *given))


def _episodes(file: h5py.File) -> list[Any]:
    """The groups of episodes in the order of their numbers; none where the file itself holds arrays."""
    base = file["data"] if isinstance(file.get("data"), h5py.Group) else file
    if any(isinstance(one, h5py.Dataset) for one in base.values()):
        return []
    names = sorted((name for name in base if re.search(r"\d+$", name)), key=lambda name: int(re.split(r"\D", name)[-1]))
    return [base[name] for name in names]


def _arrays(group: Any) -> dict[str, Any]:
    """The arrays in a group and in those below it, by path."""
    found: dict[str, Any] = {}
    group.visititems(
        lambda name, one: found.update({name: one}) if isinstance(one, h5py.Dataset) and one.shape else None
    )
    return found


def _by_group(path: Path, groups: list[Any], names: Sequence[str], position: int, row: int) -> Iterator[Chunk]:
    for number, group in enumerate(groups[position:], position):
        if lacking := [name for name in names if name not in group]:
            raise UserError(f"{path}, {group.name} has no {lacking[0]}, as the first episode has")
        columns = {name: group[name][:] for name in names}
        for name, column in columns.items():
            if column.shape[1:] != (first := groups[0][name].shape[1:]):
                here = f"{path}, {group[name].name} has the shape {column.shape[1:]} a row"
                raise UserError(f"{here}, and {first} in the first episode: leave the episode out, or the column")
        yield columns, number + 1


def _flat(file: h5py.File, names: Sequence[str], position: int, row: int) -> Iterator[Chunk]:
    count = min(len(file[name]) for name in names)
    for start in range(position, count, ROWS):
        # With the last rows comes what some arrays have more than others.
        stop = start + ROWS if start + ROWS < count else None
        yield {name: file[name][start:stop] for name in names}, start + ROWS
