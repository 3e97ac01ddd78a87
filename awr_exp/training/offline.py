"""Training on a fixed data set."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.ranges import Count
from awr_exp.training import blocks, health
from awr_exp.training.accelerate import accelerate
from awr_exp.training.trainer import Trainer


class Offline(Trainer):
    """`updates` updates on batches from `data`, in blocks of members; all intervals count updates.

    options: the other arguments of Trainer.
    """

    def __init__(
        self,
        agent: Agent,
        data: Transitions,
        updates: Count,
        batch_size: Count,
        refresh_interval: Count,
        compile: Literal["auto", True, False],
        **options: Any,
    ) -> None:
        super().__init__(agent, total=updates, **options)
        self.data = data
        self.constant = list(health.of_rewards(data.reward, data.terminated, data.info.reward_scale, online=False))
        accelerated = accelerate(type(agent).update, compile, updates * agent.members, agent.device)
        self.blocks = [
            blocks.Block(agent, members, data, accelerated, batch_size, refresh_interval)
            for members in blocks.split(agent, torch.get_num_threads())
        ]
        self.block_of = [block for block in self.blocks for _ in block.agent.seeds]

    def run(self) -> None:
        with blocks.Team(self.blocks, torch.get_num_threads()) as self.team:
            super().run()

    def train(self, goal: int, stopped: Callable[[], object], progress: Callable[[int], None]) -> int:
        self.update = self.team.train(goal, stopped, progress)
        return self.update

    def read(self) -> list[dict[str, float]]:
        return [metrics for block in self.blocks for metrics in block.read()]

    def of_rewards(self, member: int) -> Iterator[tuple[str, str]]:
        return iter(self.constant)

    def member_state(self, member: int) -> dict[str, Tensor]:
        return self.block_of[member].state(member)

    def member_facts(self, member: int) -> dict[str, Any]:
        return {"summed": self.block_of[member].summed}

    def load(self, facts: list[dict[str, Any]], state: dict[str, Tensor]) -> None:
        if "step" in facts[0]:
            raise UserError("the run to resume collects what it learns from: leave out trainer=offline")
        self.step = self.update = facts[0]["update"]
        own = {name: tensor for name, tensor in state.items() if name == "target" or name.startswith("sums.")}
        for block in self.blocks:
            block.load(self.step, facts[0]["summed"], own)
