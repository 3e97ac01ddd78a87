"""Steps on disk as they are collected, until they become a data set."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awr_exp.data.schema import TRANSITION, Schema
from awr_exp.layout import unflatten
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
        """Of each environment; a torn last row does not count, and a file that is gone has none."""
        return self.path.stat().st_size // self.row_bytes if self.path.exists() else 0

    def add(self, **columns: Any) -> None:
        """S steps, arrays [S, E, ...] of all columns; actions as the environment got them.

        Raises OSError, as on a full disk, and UserError for observations that are not of their space's type.
        """
        rows = self.schema.write(torch.zeros(*columns["reward"].shape, self.schema.width), columns)
        with self.path.open("ab") as file:
            file.write(rows.numpy().tobytes())

    def _rows(self) -> Tensor:
        """Those on disk, [S, E, W]."""
        shape = (self.steps, self.envs, self.schema.width)
        # Copy on write: torch wants writable memory, the file stays as it is.
        return (
            torch.from_numpy(np.memmap(self.path, np.float32, "c", shape=shape)) if self.steps else torch.empty(shape)
        )

    def _ends(self, env: int) -> list[int]:
        """The last rows of an environment's episodes."""
        terminated, truncated = (self.schema.read(self._rows()[:, env], name) for name in ("terminated", "truncated"))
        return (terminated | truncated).nonzero().flatten().tolist()

    def keep_whole(self) -> int:
        """Forget what came after the last episode that is whole, of the only environment; the episodes left."""
        ends = self._ends(0)
        self.cut(ends[-1] + 1 if ends else 0)
        return len(ends)

    def cut(self, steps: int) -> None:
        """Forget all but the first `steps`, or as many as there are, and a torn last row."""
        with self.path.open("ab") as file:
            file.truncate(min(steps, self.steps) * self.row_bytes)

    def episodes(self, last: int | None = None) -> Iterator[Any]:
        """Minari's EpisodeBuffer of each whole episode that is kept, by environment and time.

        Observations have the environment's own structure, and discrete actions its own numbers.
        last: only the newest of them, by when they ended: as few as have so many steps together, or all there are.
        """
        from minari.data_collector import EpisodeBuffer

        rows = self._rows()
        for env, begin, end in self._whole(rows, last):
            steps = rows[begin:end, env].clone()
            own = {name: self.schema.read(steps, name).numpy() for name in self.schema.columns}
            obs = np.concatenate([own["obs"], own["next_obs"][-1:]])
            yield EpisodeBuffer(
                observations=unflatten(self.spec.entries, obs),
                actions=own["action"] + self.spec.action_start if self.spec.discrete else own["action"],
                rewards=own["reward"].astype(np.float64).tolist(),
                terminations=own["terminated"].tolist(),
                truncations=own["truncated"].tolist(),
                infos={},
            )

    def _whole(self, rows: Tensor, last: int | None) -> list[tuple[int, int, int]]:
        """The environment, the first row and the row after the last one of each of `episodes`."""
        found = []
        for env in range(self.envs):
            mark = self.schema.read(rows[:, env], "mark").numpy()
            # A row where something begins, an episode or what is left out, ends what was before.
            marked = np.flatnonzero(mark)
            for end in self._ends(env):
                before = np.searchsorted(marked, end, "right")
                if before and mark[marked[before - 1]] > 0:
                    found.append((env, int(marked[before - 1]), end + 1))
        if last is None:
            return found
        newest = sorted(found, key=lambda episode: episode[2], reverse=True)
        steps = np.cumsum([end - begin for _, begin, end in newest])
        return sorted(newest[: int(np.searchsorted(steps, last)) + 1])

    def delete(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
