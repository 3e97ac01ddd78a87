"""True episode returns of all members, on the same seeded starts."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from awr_exp.agents.agent import Agent
from awr_exp.envs.episode import LONGEST
from awr_exp.envs.fleet import Fleet, Here, Workers
from awr_exp.envs.make import MakeEnv
from awr_exp.envs.rollout import BrokenEnvError, finite, guarded
from awr_exp.envs.worker import WorkerError
from awr_exp.errors import UserError

log = logging.getLogger(__name__)

FIRST_SEED = 1_000_000
"""Episode e starts from seed FIRST_SEED + e in every evaluation of every run, so that numbers compare."""
ROUND_TRIP = 2e-4
"""Seconds that asking one worker for a step takes beyond the step."""
WORTHWHILE = 1.0
"""Seconds that workers must save an evaluation, for it takes them as long to start."""


@dataclass(frozen=True)
class Episodes:
    """returns: undiscounted sums of reward, lengths: steps; both [K, episodes]."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]


class Evaluator:
    """Plays `episodes` whole episodes a member with the mode of its policy, all environments in step.

    Where stepping them takes long, `workers` processes share it from the second evaluation on, for the same returns.
    """

    def __init__(self, make_env: MakeEnv, members: int, episodes: int, workers: int = 1) -> None:
        self.make_env, self.members, self.episodes = make_env, members, episodes
        self.workers = min(workers, members * episodes)
        self.fleet: Fleet = Here(make_env)

    def play(self, agent: Agent, chosen: Sequence[bool] | None = None) -> Episodes:
        """The episodes of all members, or of the chosen ones; of the others, nan returns of length 0.

        Raises UserError if an environment fails, and one that is made anew fails again.
        """
        numbers = np.flatnonzero(np.repeat(np.ones(self.members) if chosen is None else chosen, self.episodes))
        threads = torch.get_num_threads()
        # More would find little to do, and wait for it on the cores of the workers.
        torch.set_num_threads(1)
        try:
            episodes, steps, stepping = self._play(agent, numbers)
        except (BrokenEnvError, WorkerError) as error:
            log.warning("evaluating anew, in this process from now on: %s", error)
            self._move(1)
            try:
                episodes, steps, stepping = self._play(agent, numbers)
            except BrokenEnvError as again:
                raise UserError(f"evaluating failed twice: {again}") from None
        finally:
            torch.set_num_threads(threads)
        saved = stepping * (1 - 1 / self.workers) - steps * (self.workers - 1) * ROUND_TRIP
        if isinstance(self.fleet, Here) and saved > WORTHWHILE:
            log.info("stepping took %.1f s of this evaluation: %d processes step from now on", stepping, self.workers)
            self._move(self.workers)
        return episodes

    def _play(self, agent: Agent, numbers: NDArray[np.int64]) -> tuple[Episodes, int, float]:
        """The episodes, and how many steps were asked for in how many seconds.

        Environments that are done wait, and cost nothing, until the last one is.
        """
        count = self.members * self.episodes
        returns, lengths, steps, stepping = np.full(count, np.nan), np.zeros(count, np.int64), 0, 0.0
        returns[numbers] = 0
        obs = np.zeros((count, agent.spec.obs_dim), np.float32)
        with guarded():
            obs[numbers] = finite(self.fleet.reset(numbers, FIRST_SEED + numbers % self.episodes))
        while numbers.size:
            all_obs = torch.as_tensor(obs).to(agent.device, agent.dtype).unflatten(0, (self.members, self.episodes))
            action = agent.act(all_obs).flatten(0, 1).cpu().numpy()
            begun = time.perf_counter()
            with guarded():
                next_obs, reward, terminated, truncated = self.fleet.step(numbers, action[numbers])
                obs[numbers], finite_reward = finite(next_obs), finite(reward)
            stepping += time.perf_counter() - begun
            steps += 1
            returns[numbers] += finite_reward
            lengths[numbers] += 1
            numbers = numbers[~(terminated | truncated)]
            if steps == LONGEST and numbers.size:
                log.warning("evaluation stops after %d steps: give the environment a time limit", LONGEST)
                break
        shape = (self.members, self.episodes)
        return Episodes(returns.reshape(shape), lengths.reshape(shape)), steps, stepping

    def _move(self, workers: int) -> None:
        self.fleet.close()
        self.workers = workers
        self.fleet = Here(self.make_env) if workers == 1 else Workers(self.make_env, workers)

    def close(self) -> None:
        self.fleet.close()
