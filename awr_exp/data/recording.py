"""Steps on disk as they are collected, until they become a data set."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awr_exp.data.schema import TRANSITION, Schema
from awr_exp.envs.episode import Episode
from awr_exp.types import Spec


class Recording:
    """A file of steps of E environments that are stepped together: [S, E, W] rows of `schema`, oldest first.

    Beside those of a transition there is `mark`, which is 1 on the first row of an episode that is kept, 0 on its
    others, and -1 on a row of any other episode.
    """

    def __init__(self, folder: Path, spec: Spec, envs: int) -> None:
        self.path, self.spec, self.envs = folder / "steps.bin", spec, envs
        self.schema = Schema(spec, (*TRANSITION, "mark"))
        self.row_bytes = 4 * envs * self.schema.width
        folder.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    @property
    def steps(self) -> int:
        """The steps of each environment; a torn last row does not count, and a file that is gone has none."""
        return self.path.stat().st_size // self.row_bytes if self.path.exists() else 0

    def add(self, **columns: Any) -> None:
        """Add S steps, arrays [S, E, ...] of all columns; actions as the environment got them.

        Raises OSError, as on a full disk, and UserError for observations that are not of their space's type.
        """
        rows = self.schema.write(torch.zeros(*columns["reward"].shape, self.schema.width), columns)
        with self.path.open("ab") as file:
            file.write(rows.numpy().tobytes())

    def cut(self, steps: int) -> None:
        """Forget all but the first `steps`, or as many as there are, and a torn last row."""
        with self.path.open("ab") as file:
            file.truncate(min(steps, self.steps) * self.row_bytes)

    def keep_whole(self) -> int:
        """Forget what came after the last episode that is whole, of the only environment; the episodes left."""
        whole = self._whole(self._rows())
        self.cut(whole[-1][2] if whole else 0)
        return len(whole)

    def episodes(self, last: int | None = None) -> Iterator[Episode]:
        """Each whole episode that is kept, by environment and time.

        last: only the newest of them, by when they ended: as few as have so many steps together, or all there are.
        """
        rows = self._rows()
        whole = self._whole(rows)
        if last is not None:
            newest = sorted(whole, key=lambda episode: episode[2], reverse=True)
            lengths = [end - begin for _, begin, end in newest]
            whole = sorted(newest[: int(np.searchsorted(np.cumsum(lengths), last)) + 1])
        for env, begin, end in whole:
            steps = rows[begin:end, env].clone()
            yield {name: self.schema.read(steps, name).numpy() for name in TRANSITION}

    def _rows(self) -> Tensor:
        """The rows that are on disk, [S, E, W]."""
        shape = (self.steps, self.envs, self.schema.width)
        # Copy on write: torch wants writable memory, the file stays as it is.
        return (
            torch.from_numpy(np.memmap(self.path, np.float32, "c", shape=shape)) if self.steps else torch.empty(shape)
        )

    def _whole(self, rows: Tensor) -> list[tuple[int, int, int]]:
        """The environment, the first row and the row after the last one of each whole episode that is kept."""
        found = []
        for env in range(self.envs):
            names = ("mark", "terminated", "truncated")
            mark, terminated, truncated = (self.schema.read(rows[:, env], name).numpy() for name in names)
            # A row where something begins, an episode or what is left out, ends what was before.
            begins = np.flatnonzero(mark)
            for end in np.flatnonzero(terminated | truncated).tolist():
                before = np.searchsorted(begins, end, "right") - 1
                if before >= 0 and mark[begins[before]] > 0:
                    found.append((env, int(begins[before]), end + 1))
        return found

    def delete(self) -> None:
        """Take the file and its folder away."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
