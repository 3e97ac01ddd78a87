"""Playing on in an environment's own vectorised form: all copies in one call, for tasks that have one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from awr_exp.envs.make import Make, observed
from awr_exp.envs.rollout import ATTEMPTS, BrokenEnvError, Player, Stretch, bounds, clipped, drop, finite
from awr_exp.errors import FAILURES, named
from awr_exp.seeding import child_seed, normal, numpy_generator
from awr_exp.surroundings import kept


class Vectorized:
    """As `awr_exp.envs.rollout.Rollouts`, but its episodes have one generator a member and cannot be played again.

    Such a form begins an episode in the call after the one that ended the last: that call is no transition of its copy.
    A copy may so be behind the others, and all of a member play until each has as many steps as are wanted; what is
    more is for the next time. Where a member's form fails, as an environment of a rollout may, all of its copies are
    made anew and begin new episodes.
    """

    def __init__(self, make_env: Make, seeds: Sequence[int], numbers: Sequence[int]) -> None:
        self.seeds, self.numbers, self.shape = seeds, numbers, (len(seeds), len(numbers))
        self.make_env = make_env
        # By member; one that failed is not among them.
        self.envs: dict[int, VectorEnv] = {}
        self.episode, self.failures = np.zeros((2, *self.shape), np.int64)
        self.reasons: list[tuple[int, str]] = []
        self._begin_all()
        self.bounds = bounds(make_env, self.envs[0].single_action_space)

    def _begin_all(self) -> None:
        self.obs = np.stack([self._begin(member) for member in range(len(self.seeds))])
        # What is neither a transition nor yet wanted: steps of all copies, and in which of them each is still to come.
        self.waiting: list[tuple[NDArray[Any], ...]] = []
        self.open = np.zeros((0, *self.shape), bool)
        self.beginning, self.broken = np.zeros((2, *self.shape), bool)
        # Failures of each member since its last step.
        self.in_a_row = np.zeros(len(self.seeds), np.int64)

    @kept()
    def _begin(self, member: int) -> NDArray[np.float32]:
        """The first observations of a member's copies, [E, obs_dim]. Raises BrokenEnvError."""
        for _ in range(ATTEMPTS):
            try:
                if member not in self.envs:
                    self.envs[member] = self.make_env.vector(len(self.numbers))
                env, failures = self.envs[member], self.failures[member].sum()
                names = "vectorized", *self.numbers, self.episode[member].sum(), *([failures] if failures else [])
                obs, _ = env.reset(seed=child_seed(self.seeds[member], *names) >> 32)
                return finite(observed(obs, env.observation_space.shape))
            except FAILURES as error:
                reason = named(error)
            self._failed(member, reason)
        raise BrokenEnvError(f"the environment failed {ATTEMPTS} times in a row: {reason}")

    def _failed(self, member: int, reason: str) -> None:
        # By its first copy: the others did not fail.
        self.failures[member, 0] += 1
        self.reasons.append((member, reason))
        drop(self.envs, member)

    @kept()
    def play(self, player: Player, steps: int, key: object) -> Stretch:
        """The next `steps` of all; key: what the noise of this call is drawn by. Raises BrokenEnvError."""
        rngs = [[numpy_generator(seed, "actions", number, key) for number in self.numbers] for seed in self.seeds]
        count = 0
        while (lacking := (self.open.sum(0) < steps).any(1)).any():
            if count % steps == 0:
                noise = np.stack([np.stack([normal(rng, steps, player.noise) for rng in own], 1) for own in rngs], 1)
            with np.errstate(all="ignore"):
                action = player(self.obs, noise[count % steps])
            self._step(action, lacking)
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
        self.episode += (parts[4] | parts[5]).sum(0) + parts[6].sum(0)
        stretch = Stretch(*parts, episode=self.episode.copy(), failures=self.failures.copy(), reasons=self.reasons)
        self.failures[:], self.reasons = 0, []
        return stretch

    def _step(self, action: NDArray[Any], members: NDArray[np.bool_]) -> None:
        """A step of the chosen members' copies: the others' are not to run ahead."""
        # A copy: a player may use its array again.
        action = action.copy()
        played = clipped(action, self.bounds)
        next_obs, reward = self.obs.copy(), np.zeros(self.shape)
        terminated, truncated = np.zeros((2, *self.shape), np.bool_)
        stepped = members[:, None].copy()
        for member in np.flatnonzero(members).tolist():
            try:
                obs, rewards, terminated[member], truncated[member], _ = self.envs[member].step(played[member])
                next_obs[member] = finite(observed(obs, self.obs.shape[1:]))
                reward[member] = finite(_each(rewards, len(self.numbers)))
                self.in_a_row[member] = 0
            except FAILURES as error:
                self._failed(member, reason := named(error))
                self.in_a_row[member] += 1
                if self.in_a_row[member] == ATTEMPTS:
                    raise BrokenEnvError(f"the environment failed {ATTEMPTS} times in a row: {reason}") from None
                next_obs[member], self.beginning[member], self.broken[member] = self._begin(member), False, True
                stepped[member] = False
        self.waiting.append((self.obs, action, reward, next_obs, terminated, truncated, self.broken))
        self.open = np.concatenate([self.open, (stepped & ~self.beginning)[None]])
        ended = (terminated | truncated) & ~self.beginning
        self.beginning = np.where(stepped, ended, self.beginning)
        self.broken = self.broken & ~stepped
        self.obs = next_obs

    def load(self, episode: NDArray[np.int64], actions: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Nowhere, [lanes, obs_dim] of nan: new episodes begin."""
        self.episode[:] = episode.reshape(self.shape)
        self._begin_all()
        return np.full((self.episode.size, self.obs.shape[-1]), np.nan, np.float32)

    def skip(self, lanes: Sequence[int]) -> None:
        """Those that `load` lost have begun anew already."""
        self.episode.reshape(-1)[lanes] += 1

    def close(self) -> None:
        for member in list(self.envs):
            drop(self.envs, member)


def _each(rewards: Any, count: int) -> NDArray[np.float64]:
    """Rewards [count], which are one number a copy in whatever shape. Raises ValueError if they are not."""
    array = np.asarray(rewards, np.float64)
    if array.size != count:
        raise ValueError(f"its reward has the shape {array.shape}: it must be one number a copy")
    return array.reshape(count)
