"""Steps on disk as they are collected, until they become a data set."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.layout import unflatten
from awr_exp.types import Spec


class Recording:
    """A file of steps of E environments that are stepped together: [S, E, W] float32, oldest first.

    Columns: obs | next_obs | action | reward | terminated | truncated | mark, which is 1 on the first row of an episode
    that is kept, 0 on its others, and -1 on a row of any other episode.
    """

    def __init__(self, folder: Path, spec: Spec, envs: int) -> None:
        self.path, self.spec, self.envs = folder / "steps.bin", spec, envs
        self.width = 2 * spec.obs_dim + spec.action_dim + 4
        self.row_bytes = 4 * envs * self.width
        folder.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    @property
    def steps(self) -> int:
        """Of each environment; a torn last row does not count, and a file that is gone has none."""
        return self.path.stat().st_size // self.row_bytes if self.path.exists() else 0

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        terminated: NDArray[Any],
        truncated: NDArray[Any],
        mark: NDArray[Any],
    ) -> None:
        """S steps, [S, E, ...] each; actions as the environment got them. Raises OSError, as on a full disk."""
        action = action[..., None] if self.spec.discrete else action
        numbers = np.stack([reward, terminated, truncated, mark], -1)
        rows = np.concatenate([obs, next_obs, action, numbers], -1, dtype=np.float32)
        with self.path.open("ab") as file:
            file.write(rows.tobytes())

    def _rows(self) -> NDArray[np.float32]:
        """Those on disk, [S, E, W]."""
        shape = (self.steps, self.envs, self.width)
        return np.memmap(self.path, np.float32, "r", shape=shape) if self.steps else np.empty(shape, np.float32)

    def keep_whole(self) -> int:
        """Forget what came after the last episode that is whole, of the only environment; the episodes left."""
        ends = np.flatnonzero(self._rows()[:, 0, -3:-1].any(-1))
        self.cut(int(ends[-1]) + 1 if len(ends) else 0)
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
        obs_dim, action_dim = self.spec.obs_dim, self.spec.action_dim
        for env, begin, end in self._whole(rows, last):
            own = np.array(rows[begin:end, env])
            obs = np.concatenate([own[:, :obs_dim], own[-1:, obs_dim : 2 * obs_dim]])
            action = own[:, 2 * obs_dim : 2 * obs_dim + action_dim]
            yield EpisodeBuffer(
                observations=unflatten(self.spec.observation, obs) if self.spec.observation else obs,
                actions=action[:, 0].astype(np.int64) + self.spec.action_start if self.spec.discrete else action,
                rewards=own[:, -4].astype(np.float64).tolist(),
                terminations=own[:, -3].astype(bool).tolist(),
                truncations=own[:, -2].astype(bool).tolist(),
                infos={},
            )

    def _whole(self, rows: NDArray[np.float32], last: int | None) -> list[tuple[int, int, int]]:
        """The environment, the first row and the row after the last one of each of `episodes`."""
        found = []
        for env in range(self.envs):
            # A row where something begins, an episode or what is left out, ends what was before.
            marked = np.flatnonzero(rows[:, env, -1])
            for end in np.flatnonzero(rows[:, env, -3:-1].any(-1)).tolist():
                before = np.searchsorted(marked, end, "right")
                if before and rows[marked[before - 1], env, -1] > 0:
                    found.append((env, int(marked[before - 1]), end + 1))
        if last is None:
            return found
        newest = sorted(found, key=lambda episode: episode[2], reverse=True)
        steps = np.cumsum([end - begin for _, begin, end in newest])
        return sorted(newest[: int(np.searchsorted(steps, last)) + 1])

    def delete(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)
