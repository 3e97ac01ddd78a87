"""Playing on and on in many environments by a policy, here or in a worker. Nothing here imports torch."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.envs.make import LARGEST, MakeEnv, clips, observed, rewarded
from awr_exp.envs.spaces import flat
from awr_exp.errors import FAILURES, named
from awr_exp.seeding import child_seed, normal, numpy_generator
from awr_exp.surroundings import kept

NOT_FINITE = "it returned an observation or a reward that is not finite"
ATTEMPTS = 10
"""Times in a row that an environment may fail before it is given up."""


class BrokenEnvError(Exception):
    """An environment failed again and again."""


class Player(Protocol):
    """Anything that acts for K members in E environments each, by noise [K, E, noise] of standard normal numbers."""

    @property
    def noise(self) -> int: ...

    def __call__(self, obs: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]: ...


@dataclass(frozen=True)
class Stretch:
    """S steps of K members' E environments, [S, K, E, ...] each.

    action: as the policy gave it; the environment got it clipped to its bounds. next_obs is the true one also where an
    episode ends. broken: the step begins an episode because the environment failed in the one before. episode: the
    number of each open episode, failures: of each environment since the last stretch, [K, E]; reasons: of those, each
    with its member.
    """

    obs: NDArray[np.float32]
    action: NDArray[Any]
    reward: NDArray[np.float64]
    next_obs: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    broken: NDArray[np.bool_]
    episode: NDArray[np.int64] = field(kw_only=True)
    failures: NDArray[np.int64] = field(kw_only=True)
    reasons: Sequence[tuple[int, str]] = field(kw_only=True)


class Rollouts:
    """Environments `numbers` of each member, one member after another, each in an episode that goes on between calls.

    Episode n of environment e of a member starts from a seed of its own, and the noise of its actions is drawn from
    one, too: nothing of the generators has to be saved, and an episode can be played again up to where it was.
    An environment that raises or returns what is not finite or of another shape is made anew and begins its next
    episode.
    """

    def __init__(self, make_env: MakeEnv, seeds: Sequence[int], numbers: Sequence[int]) -> None:
        self.make_env, self.shape = make_env, (len(seeds), len(numbers))
        # By lane; one that failed is not among them.
        self.envs: dict[int, gymnasium.Env] = {}
        self.lanes = [(seed, number) for seed in seeds for number in numbers]
        self.episode, self.failures = np.zeros((2, len(self.lanes)), np.int64)
        self.reasons: list[tuple[int, str]] = []
        self.obs = np.stack([self._begin(lane) for lane in range(len(self.lanes))])
        self.bounds = bounds(make_env, self.envs[0].action_space)

    @kept()
    def _begin(self, lane: int) -> NDArray[np.float32]:
        """The first observation of a lane's episode. Raises BrokenEnvError."""
        seed, number = self.lanes[lane]
        for _ in range(ATTEMPTS):
            try:
                if lane not in self.envs:
                    self.envs[lane] = flat(self.make_env())
                env = self.envs[lane]
                # Of 31 bits, which every environment takes.
                obs, _ = env.reset(seed=child_seed(seed, "episode", number, self.episode[lane]) >> 32)
                first, reason = observed(obs, env.observation_space.shape), NOT_FINITE
                if np.isfinite(first).all():
                    return first
            except FAILURES as error:
                reason = named(error)
            self._failed(lane, reason)
        raise BrokenEnvError(f"the environment failed {ATTEMPTS} times in a row: {reason}")

    def _failed(self, lane: int, reason: str) -> None:
        self.failures[lane] += 1
        self.reasons.append((lane // self.shape[1], reason))
        drop(self.envs, lane)

    @kept()
    def play(self, player: Player, steps: int, key: object) -> Stretch:
        """The next `steps` of all; key: what the noise of this call is drawn by. Raises BrokenEnvError."""
        count, (members, envs), shape = len(self.lanes), self.shape, self.obs.shape[1:]
        rngs = [numpy_generator(seed, "actions", number, key) for seed, number in self.lanes]
        noise = np.stack([normal(rng, steps, player.noise) for rng in rngs], 1).reshape(steps, members, envs, -1)
        obs, next_obs = np.zeros((2, steps, *self.obs.shape), np.float32)
        reward = np.empty((steps, count))
        terminated, truncated, broken = np.zeros((3, steps, count), np.bool_)
        actions: list[NDArray[Any]] = []
        for step in range(steps):
            lanes: Sequence[int] = range(count)
            for _ in range(ATTEMPTS):
                with np.errstate(all="ignore"):
                    # Copies of what a player may use again.
                    action = np.array(player(self.obs.reshape(members, envs, -1), noise[step]))
                action, said = action.reshape(count, *action.shape[2:]), dict.fromkeys(lanes, NOT_FINITE)
                played = clipped(action, self.bounds)
                for lane in lanes:
                    at = step, lane
                    try:
                        result, gained, terminated[at], truncated[at], _ = self.envs[lane].step(played[lane])
                        reward[at], next_obs[at] = rewarded(gained), observed(result, shape)
                    except FAILURES as error:
                        said[lane] = named(error)
                        reward[at] = np.nan
                good = np.isfinite(next_obs[step]).all(1) & np.isfinite(reward[step])
                if good.all():
                    break
                lanes = np.flatnonzero(~good).tolist()
                broken[step, lanes] = True
                for lane in lanes:
                    self._failed(lane, said[lane])
                    self.episode[lane] += 1
                    self.obs[lane] = self._begin(lane)
            else:
                raise BrokenEnvError(f"the environment failed {ATTEMPTS} times in a row: {self.reasons[-1][1]}")
            obs[step] = self.obs
            actions.append(action)
            self.obs[:] = next_obs[step]
            for lane in np.flatnonzero(terminated[step] | truncated[step]).tolist():
                self.episode[lane] += 1
                self.obs[lane] = self._begin(lane)
        parts = (obs, np.stack(actions), reward, next_obs, terminated, truncated, broken)
        own: Any = [part.reshape(steps, members, envs, *part.shape[2:]) for part in parts]
        numbers = {name: getattr(self, name).reshape(self.shape).copy() for name in ("episode", "failures")}
        stretch = Stretch(*own, **numbers, reasons=self.reasons)
        self.failures[:], self.reasons = 0, []
        return stretch

    def load(self, episode: NDArray[np.int64], actions: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Begin each lane's episode again and take its actions; where they are then, [lanes, obs_dim].

        Of a lane that cannot be brought back, nan.
        """
        self.episode[:] = episode
        for lane, taken in enumerate(actions):
            self.obs[lane] = self._begin(lane)
            try:
                for action in clipped(taken, self.bounds):
                    self.obs[lane] = observed(self.envs[lane].step(action)[0], self.obs.shape[1:])
            except FAILURES:
                self.obs[lane] = np.nan
        return self.obs

    def skip(self, lanes: Sequence[int]) -> None:
        """Begin the next episodes of lanes."""
        for lane in lanes:
            self.episode[lane] += 1
            self.obs[lane] = self._begin(lane)

    def close(self) -> None:
        for lane in list(self.envs):
            drop(self.envs, lane)


def drop(envs: dict[int, Any], number: int) -> None:
    """Close one of the environments, if it is there, whatever it says to that."""
    with suppress(*FAILURES):
        envs.pop(number).close()


def bounds(make_env: MakeEnv, space: gymnasium.Space) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """What actions are clipped to before an environment gets them, if they are."""
    return (space.low, space.high) if clips(make_env) and isinstance(space, spaces.Box) else None


def clipped(actions: NDArray[Any], limits: tuple[NDArray[Any], NDArray[Any]] | None) -> NDArray[Any]:
    """What environments get of actions: copies, for some change theirs in place, within `bounds` and of their dtype."""
    return np.clip(actions, *limits).astype(limits[0].dtype, copy=False) if limits else actions.copy()


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """The values, if float32 can hold them. Raises ValueError."""
    if not (np.abs(values) <= LARGEST).all():
        raise ValueError(NOT_FINITE)
    return values
