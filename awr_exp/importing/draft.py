"""What has been read so far, on disk, until it becomes a data set: an import that is killed goes on from there."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp import results
from awr_exp.data.export import check_room
from awr_exp.data.steps import Steps
from awr_exp.errors import UserError
from awr_exp.importing.rows import EMPTY
from awr_exp.importing.table import place

START: dict[str, Any] = {"file": 0, "position": 0, "row": 0, "rows": 0, "columns": {}}


class Draft:
    """Steps in a folder, a file of raw numbers for each column, beside what says how much of them counts.

    source: what the steps are made of; a draft of anything else is begun anew. file, position, row: the file that is
    read, where in it, and the number of its rows that are here. Raises OSError, as on a full disk.
    """

    def __init__(self, folder: Path, source: Any) -> None:
        self.folder, self.source = folder, source
        self.state = dict(START)
        with suppress(OSError, ValueError):
            known = json.loads((folder / "state.json").read_text())
            self.state = known["state"] if known["source"] == source else self.state
        self.stack = ExitStack()
        self.open: dict[str, Any] = {}

    def __enter__(self) -> "Draft":
        for name in self.state["columns"]:
            self._open(name)
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def _open(self, name: str) -> None:
        """The file of a column, without what was written to it after the last time that counts."""
        file = self.stack.enter_context((self.folder / f"{name}.bin").open("ab"))
        file.truncate(self.state["rows"] * self._row_bytes(name))
        self.open[name] = file

    def _row_bytes(self, name: str) -> int:
        dtype, shape = self.state["columns"][name]
        return int(np.dtype(dtype).itemsize * np.prod(shape))

    def add(self, columns: Mapping[str, NDArray[Any]], path: Path, position: int) -> None:
        """Add rows of a file, and say that it has been read to a position.

        Raises UserError where they have other columns than the rows before.
        """
        count = len(columns["rewards"])
        columns = {**columns, "file": np.full(count, self.state["file"], np.int32)}
        if not self.state["columns"]:
            self.state["columns"] = {name: [one.dtype.str, one.shape[1:]] for name, one in columns.items()}
            for name in columns:
                self._open(name)
        check_room(self.folder, sum(column.nbytes for column in columns.values()))
        for name, (dtype, shape) in self.state["columns"].items():
            column = columns[name]
            if column.shape[1:] != tuple(shape) or not np.can_cast(column.dtype, dtype, "same_kind"):
                here, there = (f"{np.dtype(kind)} {list(size)}" for kind, size in (
                    (column.dtype, column.shape[1:]), (dtype, shape)))  # fmt: skip
                raise UserError(f"{path}: its {name} are {here} a row, and those read before are {there}")
            self.open[name].write(np.ascontiguousarray(column, dtype).tobytes())
            self.open[name].flush()
        self._note(position=position, row=self.state["row"] + count, rows=self.state["rows"] + count)

    def next_file(self) -> None:
        self._note(file=self.state["file"] + 1, position=0, row=0)

    def _note(self, **changes: Any) -> None:
        self.state |= changes
        text = json.dumps({"source": self.source, "state": self.state})
        results.atomic_write(self.folder / "state.json", text.encode())

    def steps(self, paths: Sequence[Path], names: Mapping[str, Sequence[str]]) -> Steps:
        """All rows. paths: of the files; names: of the entries of each column, for what is said of one.

        Raises UserError where an episode is in several pieces, or a step is empty.
        """
        rows = self.state["rows"]
        columns: dict[str, Any] = {
            name: np.memmap(self.folder / f"{name}.bin", dtype, "r", shape=(rows, *shape))
            for name, (dtype, shape) in self.state["columns"].items()
        }
        files = np.asarray(columns["file"])

        def where(name: str, row: int, entry: int) -> str:
            own = row - int(np.searchsorted(files, files[row]))
            return place(paths[files[row]], names[name][entry], own)

        begins = _begins(columns, files)
        flags = {name: np.asarray(columns[name]) for name in ("terminated", "truncated", "final")}
        _check_empty(flags, begins, where)
        if "episode" in columns:
            _check_together(np.asarray(columns["episode"]), files, where)
        return Steps(
            observations=columns["observations"],
            actions=columns["actions"],
            rewards=columns["rewards"],
            terminated=flags["terminated"],
            truncated=flags["truncated"],
            final=flags["final"] > 0,
            begins=begins,
            where=where,
            next_observations=columns.get("next_observations"),
            whole=bool(columns["whole"].all()),
            numbered="episode" in columns,
        )

    def delete(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _begins(columns: Mapping[str, Any], files: NDArray[Any]) -> NDArray[np.bool_]:
    """Where another file or episode begins, or steps are counted anew."""
    changed = files[1:] != files[:-1]
    if "episode" in columns:
        changed |= columns["episode"][1:] != columns["episode"][:-1]
    if "step" in columns:
        changed |= columns["step"][1:] <= columns["step"][:-1]
    return np.append(True, changed)


def _check_empty(flags: Mapping[str, Any], begins: NDArray[np.bool_], where: Any) -> None:
    """Raises UserError where a row without action and reward is not at the end of an episode."""
    empty = np.flatnonzero(flags["final"] == EMPTY)
    ended = np.append(begins, True)[empty + 1]
    before = np.maximum(empty - 1, 0)
    ended |= (flags["terminated"][before] | flags["truncated"][before]) & ~begins[empty]
    if not ended.all():
        row = int(empty[(~ended).argmax()])
        raise UserError(f"{where('actions', row, 0)} is empty within an episode: repair it, or leave out its episode")


def _check_together(ids: NDArray[np.int64], files: NDArray[np.int32], where: Any) -> None:
    """Raises UserError where the rows of an episode are not one after another."""
    changed = (np.diff(ids) != 0) | (np.diff(files) != 0)
    starts = np.append(0, np.flatnonzero(changed) + 1)
    _, first = np.unique(np.stack([files[starts], ids[starts]], 1), axis=0, return_index=True)
    if len(first) < len(starts):
        row = int(starts[np.setdiff1d(np.arange(len(starts)), first)[0]])
        raise UserError(f"{where('episode', row, 0)} goes on with an episode that others came after: sort the rows")
