"""Collecting with the policy as it is: each member in its own environments, into its own part of a replay."""

import logging
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import Replay
from awr_exp.envs.fleet import Here
from awr_exp.envs.make import MakeEnv
from awr_exp.seeding import child_seed, generator

log = logging.getLogger(__name__)


class Collector:
    """Steps the environments of all members together, E each, and adds every step to the replay.

    Episode n of environment e of a member starts from a seed of its own, and actions of each step are drawn from one:
    nothing of the generators has to be saved, and an episode can be played again up to where it was.
    """

    def __init__(self, make_env: MakeEnv, agent: Agent, replay: Replay) -> None:
        self.agent, self.replay = agent, replay
        self.numbers = np.arange(agent.members * replay.envs)
        self.fleet = Here(make_env, len(self.numbers))
        self.episode = np.zeros(len(self.numbers), np.int64)
        self.length = np.zeros(len(self.numbers), np.int64)
        self.total = np.zeros(len(self.numbers))
        self.played: deque[NDArray] = deque()
        # Of the observations and of their squares so far: float32 would drift, and the replay forgets.
        self.sums = np.zeros((agent.members, 2, agent.spec.obs_dim))
        self.obs = self._reset(self.numbers)
        self.finished: list[list[Sequence[float]]] = [[] for _ in agent.seeds]

    def _reset(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Begin the environments' current episodes; their first observations."""
        member, env = np.divmod(numbers, self.replay.envs)
        names = zip(member, env, self.episode[numbers], strict=True)
        # Of 31 bits, which every environment takes.
        seeds = [child_seed(self.agent.seeds[k], "episode", e, n) >> 32 for k, e, n in names]
        return self.fleet.reset(numbers, np.array(seeds))

    def collect(self, steps: int, random: bool = False) -> None:
        """`steps` of every environment, by the policy or, to begin with, by uniformly random actions."""
        for _ in range(steps):
            generators = [
                generator(seed, "actions", self.replay.added, device=self.agent.device) for seed in self.agent.seeds
            ]
            obs = self._by_member(self.obs)
            action = self._random(generators) if random else self.agent.act(obs, generators)
            if action.is_floating_point():
                # As the replay keeps it, so that the same action can be played again.
                action = action.float()
            played = action.flatten(0, 1).cpu().numpy()
            next_obs, reward, terminated, truncated = self.fleet.step(self.numbers, played)
            ends = self._by_member(terminated), self._by_member(truncated)
            self.replay.add(obs, self._by_member(next_obs), action, self._by_member(reward), *ends)
            self.played.append(played)
            exact = self.obs.astype(np.float64).reshape(len(self.sums), self.replay.envs, -1)
            self.sums += np.stack([exact.sum(1), np.square(exact).sum(1)], 1)
            self.length += 1
            self.total += reward
            self.obs = next_obs
            done = np.flatnonzero(terminated | truncated)
            if len(done):
                totals, lengths = self.total[done].tolist(), self.length[done].tolist()
                for member, *episode in zip(done // self.replay.envs, totals, lengths, strict=True):
                    self.finished[member].append(tuple(episode))
                self.episode[done] += 1
                self.length[done], self.total[done] = 0, 0.0
                self.obs = next_obs.copy()
                self.obs[done] = self._reset(done)
                while len(self.played) > self.length.max():
                    self.played.popleft()

    def _by_member(self, values: NDArray) -> Tensor:
        """[K * E, ...] of NumPy to [K, E, ...] on the device."""
        tensor = torch.as_tensor(values).to(self.agent.device).unflatten(0, (self.agent.members, self.replay.envs))
        return tensor.to(self.agent.dtype) if tensor.is_floating_point() else tensor

    def _random(self, generators: list[Generator]) -> Tensor:
        spec, shape = self.agent.spec, (self.replay.envs, self.agent.spec.action_dim)
        uniform = torch.stack([torch.rand(shape, generator=g, device=g.device) for g in generators])
        if spec.num_actions is not None:
            return (uniform.squeeze(-1) * spec.num_actions).long()
        low, high = (torch.tensor(bound, device=uniform.device) for bound in (spec.action_low, spec.action_high))
        # Where there is no bound there is no uniform action: from -1 to 1 then.
        low, high = torch.where(low.isfinite(), low, -1), torch.where(high.isfinite(), high, 1)
        return low + (high - low) * uniform

    def obs_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [K, obs_dim] of each member's observations so far; 1 for a constant entry."""
        mean, square = np.moveaxis(self.sums, 1, 0) / (self.replay.added * self.replay.envs)
        std = np.sqrt(np.maximum(square - np.square(mean), 0))
        std = np.where(std < 1e-6 * (1 + np.abs(mean)), 1.0, std)
        return torch.as_tensor(mean).to(self.agent.obs_mean), torch.as_tensor(std).to(self.agent.obs_std)

    def read(self) -> list[dict[str, float]]:
        """Of the episodes that each member finished since the last call: mean return and length."""
        means = [np.mean(own, 0).tolist() if own else () for own in self.finished]
        self.finished = [[] for _ in self.finished]
        return [dict(zip(("collect/return_mean", "collect/length_mean"), mean, strict=False)) for mean in means]

    def state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint of a member needs of its environments, [1, E] each."""
        own = slice(member * self.replay.envs, (member + 1) * self.replay.envs)
        parts = {"episode": self.episode[own], "length": self.length[own], "return": self.total[own]}
        state = {f"collect.{name}": torch.as_tensor(values).unsqueeze(0).clone() for name, values in parts.items()}
        # Of each environment's open episode, one after another: members have different numbers of them.
        spec, steps = self.agent.spec, list(self.played)
        none = np.zeros((0,), np.int64) if spec.discrete else np.zeros((0, spec.action_dim), np.float32)
        played = [step[n : n + 1] for n in self.numbers[own] for step in steps[len(steps) - self.length[n] :]]
        actions = np.concatenate([none, *played])
        sums = torch.as_tensor(self.sums[member : member + 1]).clone()
        return state | {"collect.actions": torch.as_tensor(actions), "collect.sums": sums}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from the `state` of all members: open episodes are played again.

        Where that does not lead to where they were, they end there, truncated, and new ones begin.
        """
        self.episode, self.length, self.total = (
            state[f"collect.{name}"].flatten().numpy().copy() for name in ("episode", "length", "return")
        )
        self.sums = state["collect.sums"].numpy().copy()
        ends = self.length.cumsum()
        actions = np.split(state["collect.actions"].numpy(), ends[:-1])
        self.obs = self._reset(self.numbers)
        self.played.clear()
        for back in range(int(self.length.max()), 0, -1):
            now = np.flatnonzero(self.length >= back)
            step = np.zeros((len(self.numbers), *actions[0].shape[1:]), actions[0].dtype)
            step[now] = [actions[number][-back] for number in now]
            self.obs[now] = self.fleet.step(now, step[now])[0]
            self.played.append(step)
        if not len(self.replay):
            return
        newest = self.replay.newest(1).next_obs.flatten(0, 2).cpu().numpy()
        lost = np.flatnonzero((self.length > 0) & (self.obs != newest).any(1))
        if len(lost):
            log.warning("%d environments could not be brought back to where they were: new episodes begin", len(lost))
            self.replay.cut(torch.as_tensor(np.isin(self.numbers, lost)).view(self.agent.members, -1))
            self.episode[lost] += 1
            self.length[lost], self.total[lost] = 0, 0.0
            self.obs[lost] = self._reset(lost)

    def close(self) -> None:
        self.fleet.close()
