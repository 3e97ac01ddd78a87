"""True episode returns of all members, on the same seeded starts."""

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from awr_exp.agents.agent import Agent
from awr_exp.envs.build import MakeEnv
from awr_exp.envs.episode import ATTEMPTS, LONGEST
from awr_exp.envs.fleet import Fleet, InProcess, Numbers, Step, Workers
from awr_exp.envs.worker import PATIENCE, HangsError, Stopped, WorkerError
from awr_exp.errors import UserError
from awr_exp.surroundings import kept

log = logging.getLogger(__name__)

FIRST_SEED = 1_000_000
"""Episode e starts from seed FIRST_SEED + e in every evaluation of every run, so that numbers compare."""
ROUND_TRIP = 2e-4
"""Seconds that asking one worker for a step takes beyond the step."""
LONG = 10_000
"""Steps of an evaluation after which something is said: hardly any environment has a later time limit."""
WORTHWHILE = 1.0
"""Seconds that workers must save an evaluation, for it takes them as long to start."""


@dataclass(frozen=True)
class Episodes:
    """returns: undiscounted sums of reward, lengths: steps; both [K, episodes].

    failures: why environments failed, by member; errors: of the members that were given up.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    failures: Sequence[Sequence[str]]
    errors: Mapping[int, UserError]


class Evaluator:
    """Plays `episodes` whole episodes a member with the mode of its policy, all environments in step.

    Where stepping them takes long, `workers` processes share it from the second evaluation on, for the same returns.
    An episode in which the environment fails is begun anew in another one, and no other episode is touched: from the
    same start, and where it fails there twice from a different one, since a policy may lead into what always fails.
    """

    def __init__(
        self, make_env: MakeEnv, members: int, episodes: int, workers: int = 1, stopped: Stopped = lambda: False
    ) -> None:
        self.make_env, self.members, self.episodes, self.stopped = make_env, members, episodes, stopped
        self.workers = min(workers, members * episodes)
        self.fleet: Fleet | None = None

    def play(self, agent: Agent, chosen: Sequence[bool] | None = None) -> Episodes:
        """The episodes of all members, or of the chosen ones; of the others, nan returns.

        A member of which an episode fails ATTEMPTS times is given up, and has nan returns, too. Raises HangsError
        where that takes longer than PATIENCE once `stopped` is true.
        """
        numbers = np.flatnonzero(np.repeat(np.ones(self.members) if chosen is None else chosen, self.episodes))
        failures: list[list[str]] = [[] for _ in range(self.members)]
        with _one_thread():
            fleet = self.fleet or self._move(agent, 1)
            try:
                played = self._play(agent, fleet, numbers, failures)
            except WorkerError as error:
                log.warning("evaluating anew, in this process from now on: %s", error)
                self.workers = 1
                fleet = self._move(agent, 1)
                played = self._play(agent, fleet, numbers, failures)
        saved = played.seconds * (1 - 1 / self.workers) - played.steps * (self.workers - 1) * ROUND_TRIP
        if isinstance(fleet, InProcess) and saved > WORTHWHILE:
            said = "stepping took %.1f s of this evaluation: %d processes step from now on"
            log.info(said, played.seconds, self.workers)
            try:
                self._move(agent, self.workers)
            except WorkerError as error:
                log.warning("evaluating in this process alone: %s", error)
                self.workers = 1
                self._move(agent, 1)
        return played.episodes()

    def _play(self, agent: Agent, fleet: Fleet, numbers: Numbers, failures: list[list[str]]) -> "_Played":
        """Play the episodes of these numbers, of all members; failures: gets the reasons.

        Raises WorkerError where a member would have to be given up for what is in workers: here its environment may do.
        """
        played, until = _Played(fleet, (self.members, self.episodes), agent.spec.obs_dim, numbers, failures), math.inf
        while played.begins.size or played.plays.size:
            played.begin()
            obs = torch.as_tensor(played.obs).to(agent.device, agent.dtype).unflatten(0, played.shape)
            played.step(agent.act(obs).flatten(0, 1).cpu().numpy())
            if played.steps == LONG:
                said = "an evaluation has taken %d steps so far, and episodes end after %d at the latest: give the "
                log.warning(f"{said}environment a time limit", LONG, LONGEST)
            if self.stopped():
                until = min(until, time.perf_counter() + PATIENCE)
                if time.perf_counter() > until:
                    raise HangsError("the evaluation takes too long to wait for: it is done anew when resumed")
            if played.errors and not isinstance(fleet, InProcess):
                raise WorkerError(next(iter(played.errors.values())))
        return played

    def _move(self, agent: Agent, workers: int) -> Fleet:
        """Step in this process, or share it with workers, from now on."""
        self.close()
        place = self.make_env, agent.spec.obs_dim
        fleet: Fleet = InProcess(*place) if workers == 1 else Workers(*place, workers, self.stopped)
        self.fleet = fleet
        return fleet

    def close(self) -> None:
        if self.fleet:
            self.fleet.close()


class _Played:
    """The episodes of an evaluation as they are played, all in step; episode e of member k has the number k * E + e.

    Those that are done wait, and cost nothing, until the last one is. begins, plays: the numbers of those that are to
    be begun and of the open ones; steps: that were asked for, in so many seconds; errors: of the members given up.
    """

    def __init__(
        self, fleet: Fleet, shape: tuple[int, int], obs_dim: int, numbers: Numbers, failures: list[list[str]]
    ) -> None:
        self.fleet, self.shape, self.failures = fleet, shape, failures
        self.begins, self.plays = numbers, numbers[:0]
        self.obs, self.returns = np.zeros((math.prod(shape), obs_dim), np.float32), np.full(math.prod(shape), np.nan)
        self.lengths, self.failed = np.zeros((2, math.prod(shape)), np.int64)
        self.steps, self.seconds = 0, 0.0
        self.errors: dict[int, str] = {}

    @kept()
    def begin(self) -> None:
        given_up = list(self.errors)
        numbers, self.plays = (
            each[~np.isin(each // self.shape[1], given_up)] if given_up else each for each in (self.begins, self.plays)
        )
        self.begins = numbers[:0]
        if numbers.size:
            # Two attempts are from one place.
            seeds = FIRST_SEED + numbers % self.shape[1] + self.failed[numbers] // 2 * self.shape[1]
            step = self.fleet.reset(numbers, seeds)
            begun = self._moved(numbers, step)
            self.obs[begun], self.returns[begun], self.lengths[begun] = step.obs[step.moved], 0, 0
            self.plays = np.concatenate([self.plays, begun])

    @kept()
    def step(self, actions: NDArray[Any]) -> None:
        """Step the open episodes by their actions, of those of all."""
        if not self.plays.size:
            return
        begun = time.perf_counter()
        step = self.fleet.step(self.plays, actions[self.plays])
        self.seconds += time.perf_counter() - begun
        self.steps += 1
        numbers = self._moved(self.plays, step)
        self.obs[numbers] = step.obs[step.moved]
        self.returns[numbers] += step.reward[step.moved]
        self.lengths[numbers] += 1
        self.plays = numbers[~(step.terminated | step.truncated)[step.moved] & (self.lengths[numbers] < LONGEST)]

    def _moved(self, numbers: Numbers, step: Step) -> Numbers:
        """Those that have not failed; the others are counted, and begun anew."""
        for place, reason in step.reasons.items():
            number, member = int(numbers[place]), int(numbers[place]) // self.shape[1]
            self.failures[member].append(reason)
            self.failed[number] += 1
            if self.failed[number] == ATTEMPTS:
                said = f"the environment failed {ATTEMPTS} times in one episode, the last time so: {reason}"
                self.errors[member] = said
        self.begins = np.concatenate([self.begins, numbers[~step.moved]])
        return numbers[step.moved]

    def episodes(self) -> Episodes:
        returns = self.returns.reshape(self.shape)
        returns[list(self.errors)] = np.nan
        errors = {
            member: UserError(f"evaluating failed: {error}; mend it and resume, which tries again")
            for member, error in self.errors.items()
        }
        return Episodes(returns, self.lengths.reshape(self.shape), self.failures, errors)


@contextmanager
def _one_thread() -> Iterator[None]:
    """More would find little to do, and wait for it on the cores of the workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
