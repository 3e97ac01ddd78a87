"""Environments of one kind that are stepped together, in this process alone or shared with workers."""

from functools import partial
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.make import MakeEnv, observed, rewarded
from awr_exp.envs.rollout import NOT_FINITE, bounds, clipped, drop
from awr_exp.envs.spaces import flat
from awr_exp.envs.worker import Stopped, Worker
from awr_exp.errors import FAILURES, named

Numbers = NDArray[np.int64]
Reasons = NDArray[np.object_]
"""Why each of them failed [n], empty where it did not."""
Begun = tuple[NDArray[np.float32], Reasons]
"""First observations [n, obs_dim]; they mean nothing where an environment failed, nor does a step."""
Step = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Reasons]
"""The observations that follow [n, obs_dim], rewards [n], terminated [n], truncated [n] and reasons."""


class Fleet(Protocol):
    """Environments 0, 1, ...; every call names those it is for, as `numbers` [n].

    They get actions as in `awr_exp.envs.rollout`: clipped to their bounds, unless they want them as they are. One that
    raises, or returns what is not finite or of another shape, has failed: it is made anew when it is next reset.
    """

    def reset(self, numbers: Numbers, seeds: Numbers) -> Begun: ...

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step: ...

    def close(self) -> None: ...


class Here:
    """One after another, in this process; each is made when it is first reset."""

    def __init__(self, make_env: MakeEnv, obs_dim: int) -> None:
        self.make_env, self.shape = make_env, (obs_dim,)
        self.envs: dict[int, gymnasium.Env] = {}

    def reset(self, numbers: Numbers, seeds: Numbers) -> Begun:
        obs, said = np.full((len(numbers), *self.shape), np.nan, np.float32), {}
        for place, (number, seed) in enumerate(zip(numbers.tolist(), seeds.tolist(), strict=True)):
            try:
                if number not in self.envs:
                    self.envs[number] = flat(self.make_env())
                obs[place] = observed(self.envs[number].reset(seed=seed)[0], self.shape)
            except FAILURES as error:
                said[place] = named(error)
        good: Any = np.isfinite(obs).all(1)
        return obs, self._failures(numbers, good, said)

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step:
        chosen = [self.envs[number] for number in numbers.tolist()]
        actions = clipped(actions, bounds(self.make_env, chosen[0].action_space))
        obs, reward, said = np.full((len(numbers), *self.shape), np.nan, np.float32), np.zeros(len(numbers)), {}
        terminated, truncated = np.zeros((2, len(numbers)), np.bool_)
        for place, (env, action) in enumerate(zip(chosen, actions, strict=True)):
            try:
                result, gained, terminated[place], truncated[place], _ = env.step(action)
                reward[place], obs[place] = rewarded(gained), observed(result, self.shape)
            except FAILURES as error:
                said[place] = named(error)
        good = np.isfinite(obs).all(1) & np.isfinite(reward)
        return obs, reward, terminated, truncated, self._failures(numbers, good, said)

    def _failures(self, numbers: Numbers, good: NDArray[np.bool_], said: dict[int, str]) -> Reasons:
        """The reasons; said: those that are known, by place. What failed is closed."""
        reasons = np.full(len(numbers), "", np.object_)
        for place in np.flatnonzero(~good).tolist():
            reasons[place] = said.get(place, NOT_FINITE)
            drop(self.envs, int(numbers[place]))
        return reasons

    def close(self) -> None:
        for number in list(self.envs):
            drop(self.envs, number)


class Workers:
    """Shared among processes, of which this is one: environment i is in process i % processes.

    Raises WorkerError where another process dies, or cannot do anything, and HangsError as a worker does.
    """

    def __init__(self, make_env: MakeEnv, obs_dim: int, processes: int, stopped: Stopped = lambda: False) -> None:
        # It would only wait for the others.
        self.own = Here(make_env, obs_dim)
        self.workers: list[Worker] = []
        try:
            for _ in range(1, processes):
                self.workers.append(Worker(partial(Here, make_env, obs_dim), stopped))
        except BaseException:
            self.close()
            raise

    def reset(self, numbers: Numbers, seeds: Numbers) -> Begun:
        obs, reasons = self._ask("reset", numbers, seeds)
        return obs, reasons

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step:
        obs, reward, terminated, truncated, reasons = self._ask("step", numbers, actions)
        return obs, reward, terminated, truncated, reasons

    def _ask(self, name: str, numbers: Numbers, values: NDArray[np.generic]) -> list[NDArray]:
        processes = 1 + len(self.workers)
        mine, *others = [np.flatnonzero(numbers % processes == process) for process in range(processes)]
        asked = [(worker, share) for worker, share in zip(self.workers, others, strict=True) if len(share)]
        for worker, share in asked:
            worker.ask(name, numbers[share] // processes, values[share])
        answers = []
        if len(mine):
            answers.append((mine, getattr(self.own, name)(numbers[mine] // processes, values[mine])))
        answers += [(share, worker.answer()) for worker, share in asked]
        merged = []
        for part in range(len(answers[0][1])):
            whole = np.empty((len(numbers), *answers[0][1][part].shape[1:]), answers[0][1][part].dtype)
            for share, answer in answers:
                whole[share] = answer[part]
            merged.append(whole)
        return merged

    def close(self) -> None:
        self.own.close()
        for worker in self.workers:
            worker.close()
