"""Behaviour cloning of the best episodes alone ("10% BC" of Chen et al. 2021, arXiv 2106.01345, table 3)."""

from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.errors import UserError
from awr_exp.math.advantages import episode_numbers, episode_returns
from awr_exp.math.blocks import BLOCK, in_blocks
from awr_exp.ranges import Percent, PerMember
from awr_exp.types import Batch, Columns, Episodes, Metrics, Spec


class BCTop(Agent):
    """Maximum likelihood of the actions of those episodes that have the best undiscounted returns.

    top_percent: share of the episodes that are imitated, at least one; the others count nothing. options: other
    arguments of Agent.
    """

    whole_episodes = True
    judged_by = frozenset({"target"})

    def __init__(self, *args: Any, top_percent: PerMember[Percent] = 10.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.top_percent = self.hyper(top_percent)

    @classmethod
    def check_task(cls, spec: Spec) -> None:
        super().check_task(spec)
        if spec.chunk > 1:
            raise UserError(
                "agent=bc_top ranks whole episodes, and dataset.action_chunk makes parts of them: choose agent=bc with "
                "dataset.top_percent"
            )

    def targets(self, episodes: Episodes) -> Columns:
        """1 for the transitions of the best episodes and 0 for the others, [K, N]."""
        returns = torch.cat([episode_returns(block.reward, block.last) for block in episodes.blocks(BLOCK)])
        count = (len(returns) * self.top_percent / 100).round().clamp(min=1)
        # Of several with the same return the first ones are taken, as by dataset.top_percent.
        best = (returns.argsort(descending=True, stable=True).argsort() < count).to(self.dtype)
        before = 0

        def of(block: Episodes) -> Columns:
            nonlocal before
            numbers = before + episode_numbers(block.last)
            before = int(numbers[-1]) + 1
            return {"target": best[:, numbers]}

        return in_blocks(episodes, of, BLOCK)

    def advantage(self, batch: Batch) -> Tensor:
        assert batch.target is not None
        return batch.target

    def weights(self, advantage: Tensor) -> Tensor:
        return advantage

    def health(self, advantage: Tensor, weight: Tensor) -> Metrics:
        return {"mean_weight": weight.mean(-1)}
