"""Collecting with the policy as it is: each member in its own environments, into its own part of a replay."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import Replay
from awr_exp.envs.build import MakeEnv
from awr_exp.envs.rollout import BrokenEnvError, Driver, Rollout
from awr_exp.envs.worker import LastingWorker, Local, Stopped, Worker, WorkerError
from awr_exp.errors import UserError
from awr_exp.networks.numpy_policy import NumpyPolicy, Uniform
from awr_exp.training.progress import speaking
from awr_exp.training.recorder import Recorder
from awr_exp.types import Batch

log = logging.getLogger(__name__)

MANY = 1_000
"""Environments that take a while to be made."""
MOST_FAILURES = 100
"""Failures of a member's environments after which its run ends, counted anew when it is resumed."""


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
        if workers and agent.numpy_policy() is None:
            raise UserError("this policy has no NumPy form, in which workers act: choose trainer.workers=0")
        self.agent, self.replay, self.reward_scale = agent, replay, reward_scale
        self.recorders, self.runs = recorders, runs
        shape = (agent.members, replay.envs)
        processes = max(1, min(workers, replay.envs))
        self.shares = [np.arange(share, replay.envs, processes) for share in range(processes)]
        if math.prod(shape) >= MANY:
            log.info("making %d environments", math.prod(shape))
        self.hosts: list[Local | LastingWorker] = []
        with _said_plainly():
            for share in self.shares:
                make = partial(Driver, make_env, agent.spec.obs_dim, agent.seeds, share.tolist())
                bring_back = partial(self._bring_back, share)
                self.hosts.append(LastingWorker(make, stopped, bring_back) if workers else Local(make))
        self.episode, self.length, self.total = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
        # Of each open episode, in pieces.
        self.actions: dict[tuple[int, int], list[NDArray]] = {place: [] for place in np.ndindex(*shape)}
        # Of the observations and of their squares so far: float32 would drift, and the replay forgets.
        self.sums = np.zeros((agent.members, 2, agent.spec.obs_dim))
        self.finished: list[list[Sequence[float]]] = [[] for _ in agent.seeds]
        self.failures = np.zeros(agent.members, np.int64)
        self.forgiven = self.failures

    def collect(self, steps: int, random: bool = False) -> None:
        """`steps` of every environment, by the policy or, to begin with, by uniformly random actions.

        Raises UserError when environments fail too often, HangsError as a worker does: then nothing was collected.
        """
        self.begin(steps, random)
        self.finish()

    def begin(self, steps: int, random: bool = False) -> None:
        """The first half of `collect`: workers are at it from now on, with the policy as it is now."""
        policy: NumpyPolicy | None = Uniform(self.agent.spec) if random else self.agent.numpy_policy()
        with _said_plainly():
            for host in self.hosts:
                host.ask("play", policy or TorchPolicy(self.agent), steps, self.replay.added)

    def finish(self) -> None:
        """The second half: wait for what was begun, and add it to the replay."""
        with _said_plainly():
            rollout = Rollout.merged([host.answer() for host in self.hosts], self.shares)
        self._count_failures(rollout)
        # Where an environment failed, the episode before was cut off, and the next one begins.
        others = np.concatenate([self.episode[None], rollout.episode[:-1]]) != rollout.episode
        begins = others | (np.arange(len(others)) == 0)[:, None, None] & (self.length == 0)
        for member, recorder in enumerate(self.recorders):
            recorder.add(self.replay.added * self.replay.envs, rollout, member, begins[:, member])
        self._follow(rollout, begins)
        self.replay.cut(torch.as_tensor(others[0]))
        rollout.truncated[:-1] |= others[1:] & ~rollout.terminated[:-1]
        self.replay.extend(self._batch(rollout))
        exact = rollout.obs.astype(np.float64)
        self.sums += np.stack([exact.sum((0, 2)), np.square(exact).sum((0, 2))], 1)

    def _count_failures(self, rollout: Rollout) -> None:
        """Raises UserError where they are too many, before anything counts: the run can go on from where it was."""
        failures = self.failures + rollout.failures.sum((0, 2))
        # Of each member the last.
        reasons = dict(rollout.reasons)
        for member, reason in reasons.items():
            with speaking(*self.runs[member]) if self.runs else nullcontext():
                log.warning("an environment failed and was made anew: %s", reason)
        for member, reason in reasons.items():
            if failures[member] - self.forgiven[member] > MOST_FAILURES:
                raise UserError(f"environments failed {failures[member]} times, the last time so: {reason}")
        self.failures = failures

    def count_failures(self, member: int, failures: int) -> None:
        """Of a member's environments elsewhere: they are no reason to end its run."""
        added = failures * (np.arange(self.agent.members) == member)
        self.failures, self.forgiven = self.failures + added, self.forgiven + added

    def _batch(self, rollout: Rollout) -> Batch:
        """[K, S, E, ...] on the device."""
        names = ("obs", "action", "reward", "next_obs", "terminated", "truncated")
        tensors = {
            name: torch.as_tensor(getattr(rollout, name)).to(self.agent.device).transpose(0, 1) for name in names
        }
        tensors["reward"] = tensors["reward"] * self.reward_scale
        return Batch(**{name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})

    def _follow(self, rollout: Rollout, begins: NDArray[np.bool_]) -> None:
        """Keep account of episodes: how far the open ones are, and what the finished ones brought.

        begins [S, K, E]: where episodes begin.
        """
        done, steps = rollout.done, len(begins)
        for place in self.actions:
            own = (slice(None), *place)
            for begin, end in pairwise([0, *(np.flatnonzero(begins[1:][own]) + 1).tolist(), steps]):
                if begins[(begin, *place)]:
                    self._begin(place)
                self.length[place] += end - begin
                self.total[place] += rollout.reward[own][begin:end].sum()
                if done[(end - 1, *place)]:
                    self.finished[place[0]].append((float(self.total[place]), int(self.length[place])))
                    self._begin(place)
                elif end == steps:
                    # A copy: the view would keep the whole rollout.
                    self.actions[place].append(rollout.action[own][begin:].copy())
        self.episode = rollout.episode[-1] + done[-1]

    def _begin(self, place: tuple[int, int]) -> None:
        """Nothing is known of the open episode of an environment of a member."""
        self.length[place], self.total[place] = 0, 0.0
        self.actions[place].clear()

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
            lost = sum(self._bring_back(share, host) for share, host in zip(self.shares, self.hosts, strict=True))
        if lost:
            log.warning("%d environments could not be brought back to where they were: new episodes begin", lost)

    def _bring_back(self, envs: NDArray[np.int64], host: Local | Worker | LastingWorker) -> int:
        """Have a host play the open episodes of its share again; how many did not come to where they were."""
        places = [(member, env) for member in range(self.agent.members) for env in envs.tolist()]
        host.ask("load", self.episode[:, envs].flatten(), [self._open(*place) for place in places])
        obs = host.answer()
        if not self.replay.added:
            return 0
        newest = self.replay.newest(1).next_obs[:, envs].flatten(0, 2).cpu().numpy()
        lost = np.flatnonzero((self.length[:, envs].flatten() > 0) & (obs != newest).any(1)).tolist()
        if lost:
            cut = np.zeros(self.length.shape, bool)
            for place in (places[lane] for lane in lost):
                cut[place] = True
                self.episode[place] += 1
                self._begin(place)
            self.replay.cut(torch.as_tensor(cut))
            host.ask("skip", lost)
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


class TorchPolicy:
    """Any policy as one in NumPy, for this process."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.noise = agent, agent.policy.head.noise

    def __call__(self, obs: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]:
        action = self.agent.act(*(torch.as_tensor(each).to(self.agent.obs_mean) for each in (obs, noise)))
        # As the replay keeps it, so that the same action can be played again.
        return (action.float() if action.is_floating_point() else action).cpu().numpy()
