"""True episode returns of all members, on the same seeded starts."""

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from awr_exp.agents.agent import Agent
from awr_exp.envs.episode import ATTEMPTS, LONGEST
from awr_exp.envs.fleet import Fleet, Here, Reasons, Workers
from awr_exp.envs.make import MakeEnv
from awr_exp.envs.worker import PATIENCE, HangsError, Stopped, WorkerError
from awr_exp.errors import UserError

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
        threads = torch.get_num_threads()
        # More would find little to do, and wait for it on the cores of the workers.
        torch.set_num_threads(1)
        try:
            fleet = self.fleet or self._move(agent, 1)
            try:
                episodes, steps, stepping = self._play(agent, fleet, numbers, failures)
            except WorkerError as error:
                log.warning("evaluating anew, in this process from now on: %s", error)
                self.workers = 1
                fleet = self._move(agent, 1)
                episodes, steps, stepping = self._play(agent, fleet, numbers, failures)
        finally:
            torch.set_num_threads(threads)
        saved = stepping * (1 - 1 / self.workers) - steps * (self.workers - 1) * ROUND_TRIP
        if isinstance(fleet, Here) and saved > WORTHWHILE:
            log.info("stepping took %.1f s of this evaluation: %d processes step from now on", stepping, self.workers)
            try:
                self._move(agent, self.workers)
            except WorkerError as error:
                log.warning("evaluating in this process alone: %s", error)
                self.workers = 1
                self._move(agent, 1)
        return episodes

    def _play(
        self, agent: Agent, fleet: Fleet, numbers: NDArray[np.int64], failures: list[list[str]]
    ) -> tuple[Episodes, int, float]:
        """The episodes, and how many steps were asked for in how many seconds; failures: gets the reasons.

        Environments that are done wait, and cost nothing, until the last one is. Raises WorkerError where a member
        would have to be given up for what is in workers: here its environment may do.
        """
        shape = self.members, self.episodes
        count, attempts = self.members * self.episodes, _Attempts(self.episodes, failures)
        returns, lengths, steps, stepping = np.full(count, np.nan), np.zeros(count, np.int64), 0, 0.0
        obs = np.zeros((count, agent.spec.obs_dim), np.float32)
        begins, plays, until = numbers, numbers[:0], math.inf
        while begins.size or plays.size:
            if begins.size:
                first, reasons = fleet.reset(begins, attempts.seeds(begins))
                good = attempts.good(begins, reasons)
                begins = begins[good]
                obs[begins], returns[begins], lengths[begins] = first[good], 0, 0
                plays = np.concatenate([plays, begins])
            if plays.size:
                all_obs = torch.as_tensor(obs).to(agent.device, agent.dtype).unflatten(0, shape)
                action = agent.act(all_obs).flatten(0, 1).cpu().numpy()
                begun = time.perf_counter()
                next_obs, reward, terminated, truncated, reasons = fleet.step(plays, action[plays])
                stepping += time.perf_counter() - begun
                steps += 1
                if steps == LONG:
                    said = "an evaluation has taken %d steps so far, and episodes end after %d at the latest: give the "
                    log.warning(f"{said}environment a time limit", LONG, LONGEST)
                if self.stopped():
                    until = min(until, begun + PATIENCE)
                    if begun > until:
                        raise HangsError("the evaluation takes too long to wait for: it is done anew when resumed")
                good = attempts.good(plays, reasons)
                plays = plays[good]
                obs[plays] = next_obs[good]
                returns[plays] += reward[good]
                lengths[plays] += 1
                plays = plays[~(terminated | truncated)[good]]
                plays = plays[lengths[plays] < LONGEST]
            if attempts.errors and not isinstance(fleet, Here):
                raise WorkerError(next(iter(attempts.errors.values())))
            begins, plays = attempts.anew(), attempts.of_others(plays)
        returns, lengths = returns.reshape(shape), lengths.reshape(shape)
        returns[list(attempts.errors)] = np.nan
        errors = {
            member: UserError(f"evaluating failed: {error}; mend it and resume, which tries again")
            for member, error in attempts.errors.items()
        }
        return Episodes(returns, lengths, failures, errors), steps, stepping

    def _move(self, agent: Agent, workers: int) -> Fleet:
        """Step in this process, or share it with workers, from now on."""
        self.close()
        place = self.make_env, agent.spec.obs_dim
        fleet: Fleet = Here(*place) if workers == 1 else Workers(*place, workers, self.stopped)
        self.fleet = fleet
        return fleet

    def close(self) -> None:
        if self.fleet:
            self.fleet.close()


class _Attempts:
    """At the episodes of an evaluation, by number: which are begun anew, and whose members are given up.

    failures: gets the reasons, by member; errors: of the members that are given up.
    """

    def __init__(self, episodes: int, failures: list[list[str]]) -> None:
        self.episodes, self.failures = episodes, failures
        self.failed: Counter[int] = Counter()
        self.latest: list[int] = []
        self.errors: dict[int, str] = {}

    def seeds(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where episodes start, [n]: two attempts are from one place."""
        others = np.array([self.failed[number] // 2 for number in numbers.tolist()], np.int64)
        return FIRST_SEED + numbers % self.episodes + others * self.episodes

    def good(self, numbers: NDArray[np.int64], reasons: Reasons) -> NDArray[np.bool_]:
        """Which of them have not failed, [n]; the others are counted."""
        good: Any = reasons == ""
        for place in np.flatnonzero(~good).tolist():
            number, reason = int(numbers[place]), reasons[place]
            member = number // self.episodes
            self.failures[member].append(reason)
            self.latest.append(number)
            self.failed[number] += 1
            if self.failed[number] == ATTEMPTS:
                self.errors[member] = (
                    f"the environment failed {ATTEMPTS} times in one episode, the last time so: {reason}"
                )
        return good

    def anew(self) -> NDArray[np.int64]:
        """What failed since the last call, but for members that are given up."""
        latest, self.latest = np.array(self.latest, np.int64), []
        return self.of_others(latest)

    def of_others(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those that are not of members that are given up."""
        return numbers[~np.isin(numbers // self.episodes, list(self.errors))] if self.errors else numbers
