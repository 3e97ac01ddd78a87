"""Playing on in an environment's own vectorised form: all copies in one call, for tasks that have one."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.make import Make
from awr_exp.envs.rollout import Player, Stretch, bounds, finite, guarded
from awr_exp.errors import FAILURES
from awr_exp.seeding import child_seed, numpy_generator


class Vectorized:
    """As `awr_exp.envs.rollout.Rollouts`, but its episodes have one generator a member and cannot be played again.

    Such a form begins an episode in the call after the one that ended the last: that call is no transition of its copy.
    A copy may so be behind the others, and all of a member play until each has as many steps as are wanted; what is
    more is for the next time.
    """

    def __init__(self, make_env: Make, seeds: Sequence[int], numbers: Sequence[int]) -> None:
        self.seeds, self.numbers, self.shape = seeds, numbers, (len(seeds), len(numbers))
        with guarded():
            self.envs = [make_env.vector(len(numbers)) for _ in seeds]
        self.bounds = bounds(make_env, self.envs[0].single_action_space)
        self.episode = np.zeros(self.shape, np.int64)
        self._begin()

    def _begin(self) -> None:
        names = "vectorized", *self.numbers, self.episode.sum()
        pairs = zip(self.seeds, self.envs, strict=True)
        with guarded():
            resets = [env.reset(seed=child_seed(seed, *names) >> 32) for seed, env in pairs]
            self.obs = finite(np.stack([obs for obs, _ in resets])).astype(np.float32)
        # What is neither a transition nor yet wanted: steps of all copies, and in which of them each is still to come.
        self.waiting: list[tuple[NDArray[Any], ...]] = []
        self.open = np.zeros((0, *self.shape), bool)
        self.beginning = np.zeros(self.shape, bool)

    def play(self, player: Player, steps: int, key: object) -> Stretch:
        """The next `steps` of all; key: what the noise of this call is drawn by. Raises BrokenEnvError."""
        rngs = [[numpy_generator(seed, "actions", number, key) for number in self.numbers] for seed in self.seeds]
        count = 0
        while (lacking := (self.open.sum(0) < steps).any(1)).any():
            if count % steps == 0:
                noise = np.stack([np.stack([player.draw(rng, steps) for rng in own], 1) for own in rngs], 1)
            self._step(player(self.obs, noise[count % steps]), lacking)
            count += 1
        columns = [np.stack(column) for column in zip(*self.waiting, strict=True)]
        chosen = np.argsort(~self.open, axis=0, kind="stable")[:steps]
        np.put_along_axis(self.open, chosen, False, 0)
        left = np.flatnonzero(self.open.any((1, 2)))
        self.waiting, self.open = [self.waiting[step] for step in left], self.open[left]
        parts: Any = [
            np.take_along_axis(column, chosen.reshape(*chosen.shape, *(1,) * (column.ndim - 3)), 0)
            for column in columns
        ]
        self.episode += (parts[4] | parts[5]).sum(0)
        parts.append(np.zeros_like(parts[4]))
        return Stretch(*parts, episode=self.episode.copy(), failures=np.zeros(self.shape, np.int64), reasons=())

    def _step(self, action: NDArray[Any], members: NDArray[np.bool_]) -> None:
        """A step of the chosen members' copies: the others' are not to run ahead."""
        played = np.clip(action, *self.bounds) if self.bounds else action
        next_obs, reward = self.obs.copy(), np.zeros(self.shape)
        terminated, truncated = np.zeros((2, *self.shape), np.bool_)
        with guarded():
            for member in np.flatnonzero(members):
                obs, rewards, terminated[member], truncated[member], _ = self.envs[member].step(played[member])
                next_obs[member], reward[member] = finite(obs), finite(np.reshape(rewards, len(self.numbers)))
        self.waiting.append((self.obs, action, reward, next_obs, terminated, truncated))
        self.open = np.concatenate([self.open, (members[:, None] & ~self.beginning)[None]])
        ended = (terminated | truncated) & ~self.beginning
        self.beginning = np.where(members[:, None], ended, self.beginning)
        self.obs = next_obs

    def load(self, episode: NDArray[np.int64], actions: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Nowhere, [lanes, obs_dim] of nan: new episodes begin."""
        self.episode[:] = episode.reshape(self.shape)
        self._begin()
        return np.full((self.episode.size, self.obs.shape[-1]), np.nan, np.float32)

    def skip(self, lanes: Sequence[int]) -> None:
        """Those that `load` lost have begun anew already."""
        self.episode.reshape(-1)[lanes] += 1

    def close(self) -> None:
        for env in self.envs:
            with suppress(*FAILURES):
                env.close()
