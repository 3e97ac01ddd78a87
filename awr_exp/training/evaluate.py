"""True episode returns of all members, on the same seeded starts."""

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from awr_exp.agents.agent import Agent
from awr_exp.envs.make import MakeEnv

FIRST_SEED = 1_000_000
"""Episode e starts from seed FIRST_SEED + e in every evaluation of every run, so that numbers compare."""


@dataclass(frozen=True)
class Episodes:
    """returns: undiscounted sums of reward, lengths: steps; both [K, episodes]."""

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]


class Evaluator:
    """Plays `episodes` whole episodes a member with the mode of its policy, all environments in step."""

    def __init__(self, make_env: MakeEnv, members: int, episodes: int) -> None:
        self.members, self.episodes = members, episodes
        self.envs = SyncVectorEnv([make_env] * (members * episodes), autoreset_mode=AutoresetMode.SAME_STEP)

    def play(self, agent: Agent) -> Episodes:
        count = self.members * self.episodes
        starts: list[int | None] = [FIRST_SEED + episode for episode in range(self.episodes)]
        obs, _ = self.envs.reset(seed=starts * self.members)
        returns, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
        playing = np.ones(count, dtype=bool)
        while playing.any():
            stacked = torch.as_tensor(obs.reshape(self.members, self.episodes, -1))
            action = agent.act(stacked.to(agent.device, agent.dtype)).flatten(0, 1).cpu().numpy()
            obs, reward, terminated, truncated, _ = self.envs.step(action)
            # An environment that is done has reset itself; what it plays from then on is not counted.
            returns[playing] += reward[playing]
            lengths += playing
            playing &= ~(terminated | truncated)
        shape = (self.members, self.episodes)
        return Episodes(returns.reshape(shape), lengths.reshape(shape))

    def close(self) -> None:
        self.envs.close()
