"""Collecting with the policy as it is: each member in its own environments, into its own part of a replay."""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import Replay
from awr_exp.envs.build import MakeEnv
from awr_exp.envs.rollout import BrokenEnvError, Rollout
from awr_exp.envs.shared import SharedDriver
from awr_exp.envs.worker import Stopped, WorkerError
from awr_exp.errors import UserError
from awr_exp.math.normalizer import units
from awr_exp.networks.numpy_policy import NumpyPolicy, Uniform
from awr_exp.training.run import Run
from awr_exp.types import OWN_UNIT, Batch, RewardUnit

log = logging.getLogger(__name__)

MOST_FAILURES = 100
"""Failures of a member's environments after which its run ends, counted anew when it is resumed."""
STATE = {"episode": "episode", "length": "length", "total": "return", "sums": "sums", "failures": "failures"}
"""The attributes of a collector that a checkpoint keeps, each with its name there, which follows "collect."."""


class Collector:
    """Steps the environments of all members, E each, and adds every step to the replay.

    workers: processes that share the environments, or 0 to step them in this one. One that dies is started again, and
    its open episodes are played again up to where they were. reward_unit: that of the rewards in the replay;
    runs: one a member, if any, whose log has what happens to it and whose recorder gets its steps; stopped: as workers
    want it. Raises UserError where the environment does not begin, or the policy has no form for workers.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        agent: Agent,
        replay: Replay,
        workers: int = 0,
        reward_unit: RewardUnit = OWN_UNIT,
        runs: Sequence[Run] = (),
        stopped: Stopped = lambda: False,
    ) -> None:
        if workers and agent.numpy_policy() is None:
            raise UserError("this policy has no NumPy form, in which workers act: choose trainer.workers=0")
        self.agent, self.replay, self.reward_unit, self.runs = agent, replay, reward_unit, runs
        place = agent.spec.obs_dim, agent.seeds, replay.envs
        with _said_plainly():
            self.driver = SharedDriver(make_env, *place, workers, stopped, self._bring_back)
        shape = agent.members, replay.envs
        # Of each open episode.
        self.episode, self.length, self.total = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape)
        # The newest of all environments, as far back as the longest open episode, rollout by rollout.
        none = np.zeros((0, *shape, *agent.spec.action_shape), np.int64 if agent.spec.discrete else np.float32)
        self.actions, self.remembered = deque([none]), 0
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
            self.driver.begin(policy or TorchPolicy(self.agent), steps, self.replay.added)

    def finish(self) -> None:
        """The second half: wait for what was begun, and add it to the replay."""
        with _said_plainly():
            rollout = self.driver.finish()
        self._count_failures(rollout)
        begins = np.diff(rollout.episode, axis=0, prepend=[self.episode - (self.length == 0)]) > 0
        for member, run in enumerate(self.runs):
            if run.recorder:
                run.recorder.add(self.replay.added * self.replay.envs, rollout, member, begins[:, member])
        self._follow(rollout, begins)
        # An episode that has not ended where the next one begins was cut off: the environment failed.
        self.replay.cut(torch.as_tensor(begins[0]))
        rollout.truncated[:-1] |= begins[1:] & ~rollout.terminated[:-1]
        self.replay.extend(self._batch(rollout))
        exact = rollout.obs.astype(np.float64)
        self.sums += np.stack([exact.sum((0, 2)), np.square(exact).sum((0, 2))], 1)

    def _count_failures(self, rollout: Rollout) -> None:
        """Raises UserError where there are too many; nothing counts then, and the run can go on from where it was."""
        failures = self.failures + rollout.failures.sum((0, 2))
        # Of each member the last.
        reasons = dict(rollout.reasons)
        for member, reason in reasons.items():
            with self.runs[member].speaking() if self.runs else nullcontext():
                log.warning("an environment failed and was made anew: %s", reason)
        for member, reason in reasons.items():
            if failures[member] - self.forgiven[member] > MOST_FAILURES:
                raise UserError(f"environments failed {failures[member]} times, the last time so: {reason}")
        self.failures = failures

    def count_failures(self, member: int, failures: int) -> None:
        """Count failures of a member's environments elsewhere, which are no reason to end its run."""
        added = failures * (np.arange(self.agent.members) == member)
        self.failures, self.forgiven = self.failures + added, self.forgiven + added

    def _batch(self, rollout: Rollout) -> Batch:
        """Its transitions, [K, S, E, ...] on the device."""
        device, columns = self.agent.device, rollout.transitions.items()
        tensors = {name: torch.as_tensor(column).to(device).transpose(0, 1) for name, column in columns}
        return Batch(**tensors | {"reward": self.reward_unit.learnt(tensors["reward"])})

    def _follow(self, rollout: Rollout, begins: NDArray[np.bool_]) -> None:
        """Keep account of episodes: how far the open ones are, and what the finished ones brought.

        begins [S, K, E]: where episodes begin.
        """
        done, steps = rollout.done, len(begins)
        for place in np.ndindex(*self.length.shape):
            own = (slice(None), *place)
            for begin, end in pairwise([0, *(np.flatnonzero(begins[1:][own]) + 1).tolist(), steps]):
                if begins[(begin, *place)]:
                    self.length[place], self.total[place] = 0, 0.0
                self.length[place] += end - begin
                self.total[place] += rollout.reward[own][begin:end].sum()
                if done[(end - 1, *place)]:
                    self.finished[place[0]].append((float(self.total[place]), int(self.length[place])))
        self.episode = rollout.episode[-1] + done[-1]
        self.length[done[-1]], self.total[done[-1]] = 0, 0.0
        self.actions.append(rollout.action)
        self.remembered += steps
        while self.remembered - len(self.actions[0]) >= max(1, self.length.max()):
            self.remembered -= len(self.actions.popleft())

    def _open(self, member: int) -> list[NDArray[Any]]:
        """The actions of the open episode of each of a member's environments, [length, ...]."""
        actions = np.concatenate([part[:, member] for part in self.actions])
        return [actions[len(actions) - length :, env] for env, length in enumerate(self.length[member].tolist())]

    def obs_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [K, obs_dim] of each member's observations so far; see `units`."""
        mean, square = torch.as_tensor(self.sums / (self.replay.added * self.replay.envs)).unbind(1)
        mean, std = units(mean, square - mean.square(), self.agent.spec.entries)
        like = self.agent.actor.theta
        return mean.to(like), std.to(like)

    def read(self) -> list[dict[str, float]]:
        """The mean return and length of what each member finished since the last call, and its failures so far."""
        names = "collect/return_mean", "collect/length_mean"
        means = [dict(zip(names, np.mean(own, 0).tolist(), strict=True)) if own else {} for own in self.finished]
        self.finished = [[] for _ in means]
        return [mean | {"collect/env_failures": n} for mean, n in zip(means, self.failures.tolist(), strict=True)]

    def state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint of a member needs of its environments, [1, E] each.

        Their actions are of one open episode after another, for members have different numbers of them.
        """
        own = {f"collect.{STATE[name]}": getattr(self, name)[member : member + 1] for name in STATE}
        state = {name: torch.as_tensor(values).clone() for name, values in own.items()}
        return state | {"collect.actions": torch.as_tensor(np.concatenate(self._open(member)))}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of all members: open episodes are played again.

        Where that does not lead to where they were, they end there, truncated, and new ones begin. Raises ValueError or
        KeyError where the state is of another shape.
        """
        for own, name in STATE.items():
            before, found = getattr(self, own), state[f"collect.{name}"].numpy().copy()
            if found.shape != before.shape or found.dtype != before.dtype:
                raise ValueError(f"'collect.{name}' should be {before.shape}, found {found.shape} of {found.dtype}")
            setattr(self, own, found)
        self.forgiven = self.failures
        if self.length.min() < 0 or self.length.sum() != len(state["collect.actions"]):
            raise ValueError("its open episodes are of other lengths than their actions")
        kept, self.remembered = state["collect.actions"].numpy(), int(self.length.max())
        actions = np.zeros((self.remembered, *self.length.shape, *kept.shape[1:]), kept.dtype)
        self.actions = deque([actions])
        pieces = np.split(kept, self.length.flatten().cumsum()[:-1])
        for place, piece in zip(np.ndindex(*self.length.shape), pieces, strict=True):
            actions[(slice(self.remembered - len(piece), None), *place)] = piece
        with _said_plainly():
            lost = sum(map(self._bring_back, range(len(self.driver.shares))))
        if lost:
            log.warning("%d environments could not be brought back to where they were: new episodes begin", lost)

    def _bring_back(self, share: int) -> int:
        """Have the open episodes of a share played again; how many did not come to where they were."""
        envs = self.driver.shares[share]
        actions = [own[env] for own in map(self._open, range(self.agent.members)) for env in envs.tolist()]
        obs = self.driver.call(share, "load", self.episode[:, envs].flatten(), actions)
        if not self.replay.added:
            return 0
        newest = self.replay.newest(1).next_obs[:, envs].flatten(0, 2).cpu().numpy()
        lost = (self.length[:, envs].flatten() > 0) & (obs != newest).any(1)
        if lost.any():
            cut = np.zeros(self.length.shape, bool)
            cut[:, envs] = lost.reshape(len(cut), -1)
            self.episode += cut
            self.length[cut], self.total[cut] = 0, 0.0
            self.replay.cut(torch.as_tensor(cut))
            self.driver.call(share, "skip", np.flatnonzero(lost))
        return int(lost.sum())

    def close(self) -> None:
        self.driver.close()


@contextmanager
def _said_plainly() -> Iterator[None]:
    """Inside, what environments and workers cannot do any more is a UserError of one line."""
    try:
        yield
    except (BrokenEnvError, WorkerError) as error:
        raise UserError(f"no more can be collected: {error}") from None


class TorchPolicy:
    """Acts by any policy as one in NumPy does, but only in this process."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.noise = agent, agent.policy.head.noise

    def __call__(self, obs: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[Any]:
        action = self.agent.act(*(torch.as_tensor(each).to(self.agent.actor.theta) for each in (obs, noise)))
        # As the replay keeps it, so that the same action can be played again.
        return (action.float() if action.is_floating_point() else action).cpu().numpy()
