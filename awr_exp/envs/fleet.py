"""Environments of one kind that are stepped together, in this process alone or shared with workers."""

from contextlib import suppress
from functools import partial
from typing import Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.make import MakeEnv, rewarded
from awr_exp.envs.rollout import bounds
from awr_exp.envs.worker import Worker
from awr_exp.errors import FAILURES

Numbers = NDArray[np.int64]
Step = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""The observations that follow [n, obs_dim], rewards [n], terminated [n] and truncated [n]."""


class Fleet(Protocol):
    """Environments 0, 1, ...; every call names those it is for, as `numbers` [n].

    They get actions as in `awr_exp.envs.rollout`: clipped to their bounds, unless they want them as they are.
    """

    def reset(self, numbers: Numbers, seeds: Numbers) -> NDArray[np.float32]: ...

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step: ...

    def close(self) -> None: ...


class Here:
    """One after another, in this process; each is made when it is first reset."""

    def __init__(self, make_env: MakeEnv) -> None:
        self.make_env = make_env
        self.envs: dict[int, gymnasium.Env] = {}

    def reset(self, numbers: Numbers, seeds: Numbers) -> NDArray[np.float32]:
        """First observations [n, obs_dim]."""
        first = []
        for number, seed in zip(numbers.tolist(), seeds.tolist(), strict=True):
            if number not in self.envs:
                self.envs[number] = self.make_env()
            first.append(self.envs[number].reset(seed=seed)[0])
        return np.array(first, np.float32)

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step:
        chosen = [self.envs[number] for number in numbers.tolist()]
        if limits := bounds(self.make_env, chosen[0].action_space):
            actions = np.clip(actions, *limits)
        results = [env.step(action) for env, action in zip(chosen, actions, strict=True)]
        obs, rewards, terminated, truncated, _ = zip(*results, strict=True)
        ends = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        return np.array(obs, np.float32), np.array([rewarded(reward) for reward in rewards]), *ends

    def close(self) -> None:
        for env in self.envs.values():
            with suppress(*FAILURES):
                env.close()


class Workers:
    """Shared among processes, of which this is one: environment i is in process i % processes.

    Whatever goes wrong in another one raises WorkerError.
    """

    def __init__(self, make_env: MakeEnv, processes: int) -> None:
        # It would only wait for the others.
        self.own = Here(make_env)
        self.workers = [Worker(partial(Here, make_env)) for _ in range(1, processes)]

    def reset(self, numbers: Numbers, seeds: Numbers) -> NDArray[np.float32]:
        (obs,) = self._ask("reset", numbers, seeds)
        return obs

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step:
        obs, reward, terminated, truncated = self._ask("step", numbers, actions)
        return obs, reward, terminated, truncated

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
        parts = [(share, answer if isinstance(answer, tuple) else (answer,)) for share, answer in answers]
        merged = []
        for part in range(len(parts[0][1])):
            whole = np.empty((len(numbers), *parts[0][1][part].shape[1:]), parts[0][1][part].dtype)
            for share, answer in parts:
                whole[share] = answer[part]
            merged.append(whole)
        return merged

    def close(self) -> None:
        self.own.close()
        for worker in self.workers:
            worker.close()
