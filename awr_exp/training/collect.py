"""Collecting with the policy as it is: each member in its own environments, into its own part of a replay."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import Replay
from awr_exp.data.schema import TRANSITION
from awr_exp.envs.make import MakeEnv
from awr_exp.envs.rollout import BrokenEnvError, Player, Rollouts, Stretch
from awr_exp.envs.vectorized import Vectorized
from awr_exp.envs.worker import Stopped, Worker, WorkerDiedError, WorkerError
from awr_exp.errors import UserError
from awr_exp.networks import acting
from awr_exp.training.progress import speaking
from awr_exp.training.recorder import Recorder
from awr_exp.types import Batch

log = logging.getLogger(__name__)

MANY = 1_000
"""Environments that take a while to be made."""
MOST_FAILURES = 100
"""Failures of a member's environments after which its run ends, counted anew when it is resumed."""


class Host(Protocol):
    """Where rollouts are: here or in a worker. Each `ask` is followed by one `answer`."""

    def ask(self, method: str, *arguments: Any) -> None: ...

    def answer(self) -> Any: ...

    def close(self) -> None: ...


class Here:
    """In this process: does what was asked once the answer is wanted."""

    def __init__(self, rollouts: Rollouts | Vectorized) -> None:
        self.rollouts = rollouts

    def ask(self, method: str, *arguments: Any) -> None:
        self.answer = partial(getattr(self.rollouts, method), *arguments)

    def close(self) -> None:
        self.rollouts.close()


class Collector:
    """Steps the environments of all members, E each, and adds every step to the replay.

    workers: processes that share the environments, or 0 to step them in this one. One that dies is started again, and
    its open episodes are played again up to where they were. reward_scale: multiplies the rewards that the replay gets;
    recorders: one a member, if any; runs: folder and name of each, if it has one, whose log has what happens to it;
    stopped: as workers want it. Raises UserError where the environment does not begin, or the policy has no form for
    workers.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        agent: Agent,
        replay: Replay,
        workers: int = 0,
        reward_scale: float = 1.0,
        recorders: Sequence[Recorder] = (),
        runs: Sequence[tuple[Path, str]] = (),
        stopped: Stopped = lambda: False,
    ) -> None:
        if workers and agent.player() is None:
            raise UserError("this policy has no NumPy form, in which workers act: choose trainer.workers=0")
        self.agent, self.replay, self.make_env, self.reward_scale = agent, replay, make_env, reward_scale
        self.stopped = stopped
        shape = (agent.members, replay.envs)
        processes = min(workers, replay.envs)
        self.shares = [np.arange(share, replay.envs, max(1, processes)) for share in range(max(1, processes))]
        self.remote = processes > 0
        if math.prod(shape) >= MANY:
            log.info("making %d environments", math.prod(shape))
        with _said_plainly():
            self.hosts = [self._host(share) for share in self.shares]
        self.episode, self.length, self.total = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
        # Of each open episode, in pieces.
        self.actions: dict[tuple[int, int], list[NDArray]] = {place: [] for place in np.ndindex(*shape)}
        # Of the observations and of their squares so far: float32 would drift, and the replay forgets.
        self.sums = np.zeros((agent.members, 2, agent.spec.obs_dim))
        self.finished: list[list[Sequence[float]]] = [[] for _ in agent.seeds]
        self.failures = np.zeros(agent.members, np.int64)
        self.forgiven = self.failures
        self.recorders, self.runs = recorders, runs

    def _host(self, share: NDArray[np.int64]) -> Host:
        kind = Vectorized if getattr(self.make_env, "vectorized", False) else Rollouts
        make: Any = partial(kind, self.make_env, self.agent.seeds, share.tolist())  # type: ignore[arg-type]
        return Worker(make, self.stopped) if self.remote else Here(make())

    def collect(self, steps: int, random: bool = False) -> None:
        """`steps` of every environment, by the policy or, to begin with, by uniformly random actions.

        Raises UserError when environments fail too often, HangsError as a worker does: then nothing was collected.
        """
        self.begin(steps, random)
        self.finish()

    def begin(self, steps: int, random: bool = False) -> None:
        """The first half of `collect`: workers are at it from now on, with the policy as it is now."""
        player: Player | None = acting.Uniform(self.agent.spec) if random else self.agent.player()
        player = player or Torch(self.agent)
        self.asked = ("play", player, steps, self.replay.added)
        with _said_plainly():
            for share in range(len(self.hosts)):
                self._ask(share, *self.asked)

    def finish(self) -> None:
        """The second half: wait for what was begun, and add it to the replay."""
        with _said_plainly():
            parts = [self._answer(share) for share in range(len(self.hosts))]
        stretch = _merge(parts, self.shares)
        failures = self.failures + stretch.failures.sum(1)
        # Of each member the last.
        reasons = dict(stretch.reasons)
        for member, reason in reasons.items():
            with speaking(*self.runs[member]) if self.runs else nullcontext():
                log.warning("an environment failed and was made anew: %s", reason)
        for member, reason in reasons.items():
            if failures[member] - self.forgiven[member] > MOST_FAILURES:
                # Before anything of it counts: the run can go on from where it was.
                raise UserError(f"environments failed {failures[member]} times, the last time so: {reason}")
        self.failures = failures
        self._record(stretch)
        self._follow(stretch)
        # What came before an episode that began because of a failure was cut there.
        stretch.truncated[:-1] |= stretch.broken[1:] & ~stretch.terminated[:-1]
        self.replay.cut(torch.as_tensor(stretch.broken[0]))
        self.replay.extend(self._batch(stretch))
        exact = stretch.obs.astype(np.float64)
        self.sums += np.stack([exact.sum((0, 2)), np.square(exact).sum((0, 2))], 1)

    def count_failures(self, member: int, failures: int) -> None:
        """Of a member's environments elsewhere: they are no reason to end its run."""
        added = failures * (np.arange(self.agent.members) == member)
        self.failures, self.forgiven = self.failures + added, self.forgiven + added

    def _ask(self, share: int, *request: Any) -> None:
        try:
            self.hosts[share].ask(*request)
        except WorkerDiedError:
            self._revive(share)
            self.hosts[share].ask(*request)

    def _answer(self, share: int) -> Any:
        try:
            return self.hosts[share].answer()
        except WorkerDiedError:
            self._revive(share)
            self.hosts[share].ask(*self.asked)
            return self.hosts[share].answer()

    def _revive(self, share: int) -> None:
        log.warning("a worker process died: another one takes its environments from where they were")
        self.hosts[share].close()
        self.hosts[share] = self._host(self.shares[share])
        self._bring_back(share)

    def _batch(self, stretch: Stretch) -> Batch:
        """[K, S, E, ...] on the device."""
        tensors = {
            name: torch.as_tensor(getattr(stretch, name)).to(self.agent.device).transpose(0, 1) for name in TRANSITION
        }
        return Batch(**tensors | {"reward": tensors["reward"] * self.reward_scale})

    def _record(self, stretch: Stretch) -> None:
        first = stretch.broken.copy()
        first[0] |= self.length == 0
        first[1:] |= stretch.terminated[:-1] | stretch.truncated[:-1]
        for member, recorder in enumerate(self.recorders):
            recorder.add(self.replay.added * self.replay.envs, stretch, member, first[:, member])

    def _follow(self, stretch: Stretch) -> None:
        """Keep account of episodes: how far the open ones are, and what the finished ones brought."""
        done: Any = stretch.terminated | stretch.truncated
        eventful = (done | stretch.broken).any(0)
        for place in self.actions:
            own, begin = (slice(None), *place), 0
            rewards = stretch.reward[own]
            events = np.flatnonzero(done[own] | stretch.broken[own]).tolist() if eventful[place] else []
            for step in events:
                if stretch.broken[(step, *place)]:
                    begin, self.length[place], self.total[place] = step, 0, 0.0
                if done[(step, *place)]:
                    length, total = (
                        self.length[place] + step + 1 - begin,
                        self.total[place] + rewards[begin : step + 1].sum(),
                    )
                    self.finished[place[0]].append((float(total), int(length)))
                    begin, self.length[place], self.total[place] = step + 1, 0, 0.0
            self.length[place] += len(rewards) - begin
            self.total[place] += rewards[begin:].sum()
            if events:
                self.actions[place].clear()
            # A copy: the view would keep the whole stretch.
            self.actions[place].append(stretch.action[own][begin:].copy())
        self.episode = stretch.episode

    def obs_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [K, obs_dim] of each member's observations so far; 1 for a constant entry."""
        mean, square = np.moveaxis(self.sums, 1, 0) / (self.replay.added * self.replay.envs)
        std = np.sqrt(np.maximum(square - np.square(mean), 0))
        std = np.where(std < 1e-6 * (1 + np.abs(mean)), 1.0, std)
        return torch.as_tensor(mean).to(self.agent.obs_mean), torch.as_tensor(std).to(self.agent.obs_std)

    def read(self) -> list[dict[str, float]]:
        """Of the episodes that each member finished since the last call: mean return and length; failures so far."""
        means = [np.mean(own, 0).tolist() if own else () for own in self.finished]
        self.finished = [[] for _ in self.finished]
        metrics = [dict(zip(("collect/return_mean", "collect/length_mean"), mean, strict=False)) for mean in means]
        for own, failures in zip(metrics, self.failures.tolist(), strict=True):
            own["collect/env_failures"] = failures
        return metrics

    def state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint of a member needs of its environments, [1, E] each."""
        parts = {"episode": self.episode, "length": self.length, "return": self.total}
        state = {
            f"collect.{name}": torch.as_tensor(values[member : member + 1]).clone() for name, values in parts.items()
        }
        # Of each environment's open episode, one after another: members have different numbers of them.
        actions = np.concatenate([self._open(member, env) for env in range(self.replay.envs)])
        sums = torch.as_tensor(self.sums[member : member + 1]).clone()
        failures = torch.as_tensor(self.failures[member : member + 1]).clone()
        return state | {"collect.actions": torch.as_tensor(actions), "collect.sums": sums, "collect.failures": failures}

    def _open(self, member: int, env: int) -> NDArray:
        """The actions of an open episode, [length, ...]."""
        spec = self.agent.spec
        none = np.zeros((0,), np.int64) if spec.discrete else np.zeros((0, spec.action_dim), np.float32)
        return np.concatenate([none, *self.actions[member, env]])

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of all members: open episodes are played again.

        Where that does not lead to where they were, they end there, truncated, and new ones begin. Raises ValueError or
        KeyError where the state is of another shape.
        """
        names = {"episode": "episode", "length": "length", "total": "return", "sums": "sums", "failures": "failures"}
        for own, name in names.items():
            before, found = getattr(self, own), state[f"collect.{name}"].numpy().copy()
            if found.shape != before.shape or found.dtype != before.dtype:
                raise ValueError(f"'collect.{name}' should be {before.shape}, found {found.shape} of {found.dtype}")
            setattr(self, own, found)
        self.forgiven = self.failures
        if self.length.min() < 0 or self.length.sum() != len(state["collect.actions"]):
            raise ValueError("its open episodes are of other lengths than their actions")
        pieces = np.split(state["collect.actions"].numpy(), self.length.flatten().cumsum()[:-1])
        for place, piece in zip(self.actions, pieces, strict=True):
            self.actions[place] = [piece]
        with _said_plainly():
            lost = sum(self._bring_back(share) for share in range(len(self.hosts)))
        if lost:
            log.warning("%d environments could not be brought back to where they were: new episodes begin", lost)

    def _bring_back(self, share: int) -> int:
        """Play a share's open episodes again; the number of those that did not come to where they were."""
        host, envs = self.hosts[share], self.shares[share]
        lanes = [(member, env) for member in range(self.agent.members) for env in envs.tolist()]
        host.ask("load", self.episode[:, envs].flatten(), [self._open(*lane) for lane in lanes])
        obs = host.answer()
        if not self.replay.added:
            return 0
        newest = self.replay.newest(1).next_obs[:, envs].flatten(0, 2).cpu().numpy()
        lost = np.flatnonzero((self.length[:, envs].flatten() > 0) & (obs != newest).any(1))
        if len(lost):
            cut = np.zeros(self.length.shape, bool)
            for place in (lanes[lane] for lane in lost):
                cut[place] = True
                self.episode[place] += 1
                self.length[place], self.total[place] = 0, 0.0
                self.actions[place].clear()
            self.replay.cut(torch.as_tensor(cut))
            host.ask("skip", lost.tolist())
            host.answer()
        return len(lost)

    def close(self) -> None:
        for host in self.hosts:
            host.close()


@contextmanager
def _said_plainly() -> Iterator[None]:
    """What environments and workers cannot do any more, as the end of a run."""
    try:
        yield
    except (BrokenEnvError, WorkerError) as error:
        raise UserError(f"no more can be collected: {error}") from None


class Torch:
    """Any policy as a player, for this process."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.noise = agent, agent.policy.head.noise

    def __call__(self, obs: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]:
        action = self.agent.act(*(torch.as_tensor(each).to(self.agent.obs_mean) for each in (obs, noise)))
        # As the replay keeps it, so that the same action can be played again.
        return (action.float() if action.is_floating_point() else action).cpu().numpy()


def _merge(parts: Sequence[Stretch], shares: Sequence[NDArray[np.int64]]) -> Stretch:
    """One stretch of all environments from those of each share."""
    if len(parts) == 1:
        return parts[0]
    order, merged = np.argsort(np.concatenate(shares)), {}
    for name in (field.name for field in fields(Stretch) if field.name != "reasons"):
        # Of each step, or of each environment alone.
        axis = 1 if name in ("episode", "failures") else 2
        merged[name] = np.concatenate([getattr(part, name) for part in parts], axis).take(order, axis)
    return Stretch(**merged, reasons=[reason for part in parts for reason in part.reasons])
