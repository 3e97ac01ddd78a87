"""True episode returns of all members, on the same seeded starts."""

import logging
import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.envs.build import MakeEnv
from awr_exp.envs.episode import ATTEMPTS, LONGEST
from awr_exp.envs.fleet import Fleet, InProcess, Numbers, Step, Workers
from awr_exp.envs.worker import PATIENCE, HangsError, Stopped, WorkerError
from awr_exp.errors import UserError
from awr_exp.surroundings import kept
from awr_exp.types import Spec

log = logging.getLogger(__name__)

FIRST_SEED = 1_000_000
"""Episode e starts from seed FIRST_SEED + e in every evaluation of every run while it trains: numbers compare."""
ROUND_TRIP = 2e-4
"""Seconds that asking one worker for a step takes beyond the step."""
LONG = 10_000
"""After so many steps of an evaluation something is said, since hardly any environment has a later time limit."""
WORTHWHILE = 1.0
"""Seconds that workers must save an evaluation, for it takes them as long to start."""


class Acts(Protocol):
    """Anything that acts for K members."""

    @property
    def spec(self) -> Spec: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def act(self, obs: Tensor) -> Tensor:
        """Actions [K, B, ...] for obs [K, B, obs_dim] in the data's units."""


class Evaluator:
    """Plays `episodes` whole episodes a member with its policy, all environments in step.

    Where stepping them takes long, `workers` processes share it from the second evaluation on, for the same returns.
    An episode in which the environment fails is begun anew in another one, and no other episode is touched: from the
    same start, and where it fails there twice from a different one, since a policy may lead into what always fails.
    """

    def __init__(
        self, make_env: MakeEnv, members: int, episodes: int, workers: int = 1, stopped: Stopped = lambda: False
    ) -> None:
        self.make_env, self.shape, self.stopped = make_env, (members, episodes), stopped
        self.workers = min(workers, members * episodes)
        self.fleet: Fleet | None = None

    @kept()
    def play(
        self,
        agent: Acts,
        chosen: Sequence[bool] | None = None,
        episodes: int | None = None,
        first: int = FIRST_SEED,
    ) -> "Episodes":
        """The episodes of all members, or of the chosen ones, or the first so many of each; of others, nan returns.

        first: the seed that the first episode of each member starts from; the others have those after it.
        A member of which an episode fails ATTEMPTS times is given up, and has nan returns, too. Raises HangsError
        where that takes longer than PATIENCE once `stopped` is true.
        """
        members, count = self.shape
        wanted = np.ones(members, bool) if chosen is None else np.array(chosen)
        numbers = np.flatnonzero(wanted[:, None] & (np.arange(count) < (episodes or count)))
        failures: list[list[str]] = [[] for _ in range(members)]
        # More threads would find little to do, and wait for it on the cores of the workers; afterwards they are back.
        torch.set_num_threads(1)
        try:
            played = self._play(agent, numbers, failures, first)
        except WorkerError as error:
            log.warning("evaluating anew, in this process from now on: %s", error)
            self.close()
            self.workers = 1
            played = self._play(agent, numbers, failures, first)
        saved = played.seconds * (1 - 1 / self.workers) - played.steps * (self.workers - 1) * ROUND_TRIP
        if self.workers > 1 and isinstance(self.fleet, InProcess) and saved > WORTHWHILE:
            said = "stepping took %.1f s of this evaluation: %d processes step from now on"
            log.info(said, played.seconds, self.workers)
            self.close()
            try:
                self.fleet = Workers(self.make_env, agent.spec.obs_dim, self.workers, self.stopped)
            except WorkerError as error:
                log.warning("evaluating in this process alone: %s", error)
                self.workers = 1
        return played

    def _play(self, agent: Acts, numbers: Numbers, failures: list[list[str]], first: int) -> "Episodes":
        """Play the episodes of these numbers; failures: gets the reasons, by member.

        Raises WorkerError where a member would have to be given up for what is in workers: here its environment may do.
        """
        self.fleet = self.fleet or InProcess(self.make_env, agent.spec.obs_dim)
        played, until = Episodes(self.fleet, self.shape, agent.spec.obs_dim, numbers, failures, first), math.inf
        while played.begins.size or played.open.size:
            played.begin()
            obs = torch.as_tensor(played.obs).to(agent.device, agent.dtype).unflatten(0, self.shape)
            for action in agent.spec.steps(agent.act(obs).flatten(0, 1).cpu().numpy()):
                played.step(action)
                if played.steps == LONG:
                    said = "an evaluation has taken %d steps so far, and episodes end after %d at the latest: give the "
                    log.warning(f"{said}environment a time limit", LONG, LONGEST)
            if self.stopped():
                until = min(until, time.perf_counter() + PATIENCE)
                if time.perf_counter() > until:
                    raise HangsError("the evaluation takes too long to wait for: it is done anew when resumed")
            if played.given_up and not isinstance(self.fleet, InProcess):
                raise WorkerError(next(iter(played.given_up.values())))
        return played

    def close(self) -> None:
        if self.fleet:
            self.fleet.close()
        self.fleet = None


class Episodes:
    """The episodes of an evaluation, which are played all in step; episode e of member k has the number k * E + e.

    returns: undiscounted sums of reward, lengths: steps; both [K, E]. failures: why environments failed, by member.
    Those that are done wait, and cost nothing, until the last one is. begins, open: the numbers of those that are yet
    to be begun and that are being played; given_up: why, by member; steps: that were asked for, in so many seconds.
    """

    def __init__(
        self,
        fleet: Fleet,
        shape: tuple[int, int],
        obs_dim: int,
        numbers: Numbers,
        failures: list[list[str]],
        first: int,
    ) -> None:
        self.fleet, self.failures, self.begins, self.open = fleet, failures, numbers, numbers[:0]
        self.first = first
        self.returns, self.lengths = np.full(shape, np.nan), np.zeros(shape, np.int64)
        self.obs = np.zeros((math.prod(shape), obs_dim), np.float32)
        # Of each episode so far.
        self.failed = np.zeros(math.prod(shape), np.int64)
        self.given_up: dict[int, str] = {}
        self.steps, self.seconds = 0, 0.0

    @property
    def errors(self) -> dict[int, UserError]:
        """Why members were given up."""
        said = "evaluating failed: %s; mend it and resume, which tries again"
        return {member: UserError(said % reason) for member, reason in self.given_up.items()}

    @kept()
    def begin(self) -> None:
        """Begin the episodes that are yet to be begun, but none of members that are given up."""
        episodes = self.returns.shape[1]
        if self.given_up:
            members = list(self.given_up)
            self.returns[members] = np.nan
            self.begins, self.open = (
                numbers[~np.isin(numbers // episodes, members)] for numbers in (self.begins, self.open)
            )
        if self.begins.size:
            numbers, self.begins = self.begins, self.begins[:0]
            # Two attempts are from one place.
            seeds = self.first + numbers % episodes + self.failed[numbers] // 2 * episodes
            step = self.fleet.reset(numbers, seeds)
            begun = self._moved(numbers, step)
            self.obs[begun], self.returns.flat[begun], self.lengths.flat[begun] = step.obs[step.moved], 0, 0
            self.open = np.concatenate([self.open, begun])

    @kept()
    def step(self, actions: NDArray[Any]) -> None:
        """Step the episodes that are being played; actions: those of all episodes."""
        if self.open.size:
            begun = time.perf_counter()
            step = self.fleet.step(self.open, actions[self.open])
            self.seconds += time.perf_counter() - begun
            self.steps += 1
            numbers = self._moved(self.open, step)
            self.obs[numbers] = step.obs[step.moved]
            self.returns.flat[numbers] += step.reward[step.moved]
            self.lengths.flat[numbers] += 1
            going_on = ~(step.terminated | step.truncated)[step.moved] & (self.lengths.flat[numbers] < LONGEST)
            self.open = numbers[going_on]

    def _moved(self, numbers: Numbers, step: Step) -> Numbers:
        """The episodes that have not failed; the others are counted, and begun anew later."""
        for place, reason in step.reasons.items():
            number, member = int(numbers[place]), int(numbers[place]) // self.returns.shape[1]
            self.failures[member].append(reason)
            self.failed[number] += 1
            if self.failed[number] == ATTEMPTS:
                said = f"the environment failed {ATTEMPTS} times in one episode, the last time so: {reason}"
                self.given_up[member] = said
        self.begins = np.concatenate([self.begins, numbers[~step.moved]])
        return numbers[step.moved]
