"""Environments of one kind that are stepped together, in this process alone or shared with workers.

A worker is a fresh interpreter that never imports torch, runs nothing of the program that started it, and ends with it.
"""

import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Protocol

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.make import MakeEnv

Numbers = NDArray[np.int64]
Step = tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""The observations that follow [n, obs_dim], rewards [n], terminated [n] and truncated [n]."""


class Fleet(Protocol):
    """Environments 0, 1, ...; every call names those it is for, as `numbers` [n]."""

    def reset(self, numbers: Numbers, seeds: Numbers) -> NDArray[np.float32]: ...

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step: ...

    def close(self) -> None: ...


class Here:
    """One after another, in this process."""

    def __init__(self, make_env: MakeEnv, count: int) -> None:
        self.envs = [make_env() for _ in range(count)]

    def reset(self, numbers: Numbers, seeds: Numbers) -> NDArray[np.float32]:
        """First observations [n, obs_dim]."""
        pairs = zip(numbers, seeds, strict=True)
        return np.array([self.envs[number].reset(seed=int(seed))[0] for number, seed in pairs], np.float32)

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step:
        results = [self.envs[number].step(action) for number, action in zip(numbers, actions, strict=True)]
        obs, reward, terminated, truncated, _ = zip(*results, strict=True)
        ends = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        return np.array(obs, np.float32), np.array(reward, np.float64), *ends

    def close(self) -> None:
        for env in self.envs:
            env.close()


class WorkerError(Exception):
    """A worker died, or could not do what was asked of it."""


class Workers:
    """Shared among processes, of which this is one: environment i is in process i % processes.

    Whatever goes wrong in another one raises WorkerError.
    """

    def __init__(self, make_env: MakeEnv, count: int, processes: int) -> None:
        # It would only wait for the others.
        self.own = Here(make_env, len(range(0, count, processes)))
        self.pipes: list[Connection] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        # What this interpreter can import, the workers can.
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        for worker in range(1, processes):
            mine, other = Pipe()
            command = [sys.executable, "-m", __name__, str(other.fileno())]
            environment = os.environ | {"PYTHONPATH": paths}
            self.processes.append(subprocess.Popen(command, pass_fds=[other.fileno()], env=environment))
            other.close()
            mine.send_bytes(cloudpickle.dumps((make_env, len(range(worker, count, processes)))))
            self.pipes.append(mine)

    def reset(self, numbers: Numbers, seeds: Numbers) -> NDArray[np.float32]:
        (obs,) = self._ask("reset", numbers, seeds)
        return obs

    def step(self, numbers: Numbers, actions: NDArray[np.generic]) -> Step:
        obs, reward, terminated, truncated = self._ask("step", numbers, actions)
        return obs, reward, terminated, truncated

    def _ask(self, name: str, numbers: Numbers, values: NDArray[np.generic]) -> list[NDArray]:
        processes = 1 + len(self.pipes)
        shares = [np.flatnonzero(numbers % processes == process) for process in range(processes)]
        asked = [(pipe, share) for pipe, share in zip(self.pipes, shares[1:], strict=True) if len(share)]
        answers = []
        try:
            for pipe, share in asked:
                pipe.send((name, numbers[share] // processes, values[share]))
            if len(shares[0]):
                answers.append((shares[0], _answer(self.own, name, numbers[shares[0]] // processes, values[shares[0]])))
            answers += [(share, pipe.recv()) for pipe, share in asked]
        except (OSError, EOFError):
            raise WorkerError("a worker process died") from None
        for _, answer in answers:
            if isinstance(answer, Exception):
                raise WorkerError(f"{type(answer).__name__}: {answer}")
        merged = []
        for part in range(len(answers[0][1])):
            whole = np.empty((len(numbers), *answers[0][1][part].shape[1:]), answers[0][1][part].dtype)
            for share, answer in answers:
                whole[share] = answer[part]
            merged.append(whole)
        return merged

    def close(self) -> None:
        self.own.close()
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.wait()


def _answer(envs: Here, name: str, numbers: Numbers, values: NDArray[Any]) -> tuple[NDArray, ...]:
    return envs.step(numbers, values) if name == "step" else (envs.reset(numbers, values),)


def serve(pipe: Connection) -> None:
    """Do what the other end of the pipe asks for, until it is closed. Exceptions are answers, too."""
    # Signals are for the one that trains, who closes the pipe when it is time.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    envs: Here | Exception
    try:
        envs = Here(*cloudpickle.loads(pipe.recv_bytes()))
    except Exception as error:
        envs = error
    while True:
        try:
            name, numbers, values = pipe.recv()
        except EOFError:
            return
        try:
            if isinstance(envs, Exception):
                raise envs
            pipe.send(_answer(envs, name, numbers, values))
        except Exception as error:
            pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
