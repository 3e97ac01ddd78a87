"""Playing on and on in many environments by a policy, here or in a worker. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.build import MakeEnv
from awr_exp.envs.fleet import InProcess, Numbers, Vectorized
from awr_exp.networks.numpy_policy import NumpyPolicy
from awr_exp.seeding import child_seed, normal, numpy_generator
from awr_exp.surroundings import kept

ATTEMPTS = 10
"""Times in a row that an environment may fail before it is given up."""


class BrokenEnvError(Exception):
    """An environment failed again and again."""


@dataclass(frozen=True)
class Rollout:
    """S steps of K members' E environments, [S, K, E, ...] each.

    action: as the policy gave it; the environment got it clipped to its bounds. next_obs is the true one also where an
    episode ends. episode: the number of the episode that the step is of; where it grows and the step before ended none,
    the environment failed in between. failures: how often it failed since the step before; reasons: why, with the
    member of each.
    """

    obs: NDArray[np.float32]
    action: NDArray[Any]
    reward: NDArray[np.float64]
    next_obs: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    episode: NDArray[np.int64]
    failures: NDArray[np.int64]
    reasons: Sequence[tuple[int, str]]

    @property
    def transitions(self) -> dict[str, NDArray[Any]]:
        """The columns that a replay or a recording keeps."""
        names = ("obs", "action", "reward", "next_obs", "terminated", "truncated")
        return {name: getattr(self, name) for name in names}

    @property
    def done(self) -> NDArray[np.bool_]:
        """Whether each step ends an episode."""
        return self.terminated | self.truncated


class Driver:
    """Plays in environments `numbers` of each member, each in an episode that goes on from one rollout to the next.

    A lane is one environment of one member; the lanes of a member follow one another. Episode n of a lane starts from a
    seed of its own, and the noise of its actions is drawn from another one: so no generator has to be saved, and an
    episode can be played again up to where it was.

    A lane whose environment fails begins its next episode, and is then a step behind the others, as one is that needs a
    step to begin an episode (see `Vectorized`). Lanes that are behind are stepped until they have caught up; what those
    that are stepped together with them play meanwhile is part of the next rollout.
    """

    def __init__(self, make_env: MakeEnv, obs_dim: int, seeds: Sequence[int], numbers: Sequence[int]) -> None:
        self.shape = len(seeds), len(numbers)
        self.lanes = [(seed, number) for seed in seeds for number in numbers]
        own_form = getattr(make_env, "vectorized", False)
        self.fleet = Vectorized(make_env, obs_dim, *self.shape[::-1]) if own_form else InProcess(make_env, obs_dim)
        self.obs = np.zeros((len(self.lanes), obs_dim), np.float32)
        self.failures, self.in_a_row = np.zeros((2, len(self.lanes)), np.int64)
        self.reasons: list[tuple[int, str]] = []
        self.load(np.zeros(len(self.lanes), np.int64), [])

    @kept()
    def load(self, episode: Numbers, actions: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Begin each lane's episode again and take its actions; the observations then, [lanes, obs_dim].

        They are nan in lanes that cannot be brought back. Raises BrokenEnvError.
        """
        self.episode = episode
        # Steps of all lanes that are not yet part of a rollout; the last column says which lanes moved.
        self.steps: list[tuple[NDArray[Any], ...]] = []
        self.counts = np.zeros(len(self.lanes), np.int64)
        self._begin(np.arange(len(self.lanes)))
        if self.fleet.autoreset:
            return np.full_like(self.obs, np.nan)
        for lane, taken in enumerate(actions):
            for action in taken:
                step = self.fleet.step(np.array([lane]), action[None])
                self.obs[lane] = step.obs[0] if step.moved[0] else np.nan
                if not step.moved[0]:
                    break
        return self.obs

    @kept()
    def skip(self, lanes: Numbers) -> None:
        """Begin the next episodes of lanes that `load` could not bring back."""
        self._begin_next(lanes)

    def _begin_next(self, lanes: Numbers, by_itself: bool = True) -> None:
        """Begin the next episodes of lanes, unless they do so by themselves. Raises BrokenEnvError."""
        self.episode = self.episode.copy()
        self.episode[lanes] += 1
        if not (by_itself and self.fleet.autoreset):
            self._begin(lanes)

    def _begin(self, lanes: Numbers) -> None:
        """Begin the episodes of lanes. Raises BrokenEnvError."""
        # Not in place: a step that waits has these observations.
        self.obs = self.obs.copy()
        for _ in range(ATTEMPTS):
            names = [(*self.lanes[lane], self.episode[lane]) for lane in lanes.tolist()]
            # Every environment takes a seed of 31 bits.
            seeds = np.array([child_seed(seed, "episode", number, episode) >> 32 for seed, number, episode in names])
            step = self.fleet.reset(lanes, seeds)
            self.obs[lanes] = step.obs
            lanes = self._failed(lanes, step.reasons)
            if not len(lanes):
                return
        raise self._broken()

    def _failed(self, lanes: Numbers, reasons: dict[int, str]) -> Numbers:
        """Count lanes that failed, with the reasons by place; all lanes that have to begin anew because of them."""
        failed, self.failures = lanes[list(reasons)], self.failures.copy()
        self.failures[failed] += 1
        self.reasons += zip((failed // self.shape[1]).tolist(), reasons.values(), strict=True)
        return self.fleet.together(failed)

    def _broken(self) -> BrokenEnvError:
        return BrokenEnvError(f"the environment failed {ATTEMPTS} times in a row: {self.reasons[-1][1]}")

    @kept()
    def play(self, policy: NumpyPolicy, steps: int, key: object) -> Rollout:
        """The next `steps` of all; key: what the noise of this call is drawn by. Raises BrokenEnvError."""
        rngs = [numpy_generator(seed, "actions", number, key) for seed, number in self.lanes]
        tick = 0
        while (lacking := self.counts < steps).any():
            if tick % steps == 0:
                noise = np.stack([normal(rng, steps, policy.noise) for rng in rngs], 1)
                noise = noise.reshape(steps, *self.shape, -1)
            with np.errstate(all="ignore"):
                # A copy of what a policy may use again.
                action = np.array(policy(self.obs.reshape(*self.shape, -1), noise[tick % steps]))
            self._step(action.reshape(len(self.lanes), *action.shape[2:]), self.fleet.together(np.flatnonzero(lacking)))
            tick += 1
        return self._next(steps)

    def _step(self, action: NDArray[Any], lanes: Numbers) -> None:
        """Step these lanes, each with its own of the actions of all."""
        step, before = self.fleet.step(lanes, action[lanes]), self.obs
        if len(lanes) == len(self.lanes):
            self.obs, reward, terminated, truncated, moved = step[:5]
        else:
            whole: Any = [before.copy(), *(np.zeros(len(before), part.dtype) for part in step[1:5])]
            for mine, part in zip(whole, step, strict=False):
                mine[lanes] = part
            self.obs, reward, terminated, truncated, moved = whole
        # None of these arrays is written to from now on.
        own = before, action, reward, self.obs, terminated, truncated, self.episode, self.failures, moved
        self.steps.append(own)
        self.counts = self.counts + moved
        if self.failures.any():
            self.failures = np.where(moved, 0, self.failures)
            self.in_a_row[moved] = 0
        if (ended := moved & (terminated | truncated)).any():
            self._begin_next(np.flatnonzero(ended))
        if step.reasons:
            again = self._failed(lanes, step.reasons)
            self.in_a_row[again] += 1
            if self.in_a_row.max() == ATTEMPTS:
                raise self._broken()
            self._begin_next(again, by_itself=False)

    def _next(self, steps: int) -> Rollout:
        """The rollout of the first `steps` in which each lane moved; what is left over waits."""
        columns: Any = [np.stack(column) for column in zip(*self.steps, strict=True)]
        moved, left = columns.pop(), []
        if len(moved) > steps:
            chosen = np.argsort(~moved, axis=0, kind="stable")[:steps]
            np.put_along_axis(moved, chosen, False, 0)
            left = [(*step[:-1], own) for step, own in zip(self.steps, moved, strict=True) if own.any()]
            columns = [
                np.take_along_axis(column, chosen.reshape(*chosen.shape, *(1,) * (column.ndim - 2)), 0)
                for column in columns
            ]
        self.steps = left
        self.counts -= steps
        own: Any = [column.reshape(steps, *self.shape, *column.shape[2:]) for column in columns]
        own.append(self.reasons)
        self.reasons = []
        return Rollout(*own)

    def close(self) -> None:
        self.fleet.close()
