"""True episode returns of all members, on the same seeded starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
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
        self.episodes = episodes
        self.envs = [[make_env() for _ in range(episodes)] for _ in range(members)]

    def play(self, agent: Agent, chosen: Sequence[bool] | None = None) -> Episodes:
        """The episodes of all members, or of the chosen ones; of the others, nan returns of length 0.

        Environments that are done wait, and cost nothing, until the last one is.
        """
        shape = (agent.members, self.episodes)
        returns, lengths = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
        obs = np.zeros((*shape, agent.spec.obs_dim), dtype=np.float32)
        playing = []
        for member, envs in enumerate(self.envs):
            if chosen is None or chosen[member]:
                returns[member] = 0
                for episode, env in enumerate(envs):
                    obs[member, episode], _ = env.reset(seed=FIRST_SEED + episode)
                    playing.append((member, episode, env))
        while playing:
            action = agent.act(torch.as_tensor(obs).to(agent.device, agent.dtype)).cpu().numpy()
            still = []
            for member, episode, env in playing:
                obs[member, episode], reward, terminated, truncated, _ = env.step(action[member, episode])
                returns[member, episode] += float(reward)
                lengths[member, episode] += 1
                if not (terminated or truncated):
                    still.append((member, episode, env))
            playing = still
        return Episodes(returns, lengths)

    def close(self) -> None:
        for envs in self.envs:
            for env in envs:
                env.close()
