"""Acting by the best of several samples of a policy, as its Q judges them: no training is needed for that."""

from collections.abc import Sequence

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.agents.members import BLOCK
from awr_exp.errors import UserError
from awr_exp.seeding import generator


def drawn(generators: Sequence[torch.Generator], count: int, rows: int, width: int) -> Tensor:
    """What members draw `count` actions in each of `rows` states with, [K, count, rows, width]."""
    # In blocks, so that the draws do not depend on how many rows come at once.
    shapes = [(count, min(BLOCK, rows - begin), width) for begin in range(0, rows, BLOCK)]
    blocks = [torch.cat([torch.randn(shape, generator=own) for shape in shapes], 1) for own in generators]
    return torch.stack(blocks)


class BestOf:
    """Acts as an agent, but by the best of `count` actions that its policy draws (Hansen-Estruch et al. 2023, IDQL).

    names: of what the draws are for, such as ("evaluation", 3): they depend on that and on the members' seeds alone.
    Raises UserError for an agent without Q.
    """

    def __init__(self, agent: Agent, count: int, *names: object) -> None:
        if agent.judge is None:
            raise UserError(
                f"policy.best_of={count} needs an agent with a Q to judge actions by, and {type(agent).__name__} has "
                "none: choose agent=iql or another one that has"
            )
        self.agent, self.judge, self.count, self.names = agent, agent.judge.averaged(), count, names
        self.spec, self.device, self.dtype, self.members = agent.spec, agent.device, agent.dtype, agent.members
        self.generators = [generator(seed, "best_of", *names) for seed in agent.seeds]

    def shard(self, members: slice) -> "BestOf":
        return BestOf(self.agent.shard(members), self.count, *self.names)

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """Actions [K, B, ...] for obs [K, B, obs_dim] in the data's units."""
        obs = self.agent.normalize(obs)
        noise = drawn(self.generators, self.count, obs.shape[1], self.agent.policy.head.noise).to(obs)
        actions = self.agent.policy.samples(self.agent.actor.theta, obs, noise)
        return self.judge.module.best(self.judge.theta, obs, actions)


Evaluated = Agent | BestOf
"""What is evaluated: the mode of a policy, or the best of its samples."""
