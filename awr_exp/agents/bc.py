"""Behaviour cloning: the actor's regression with weight 1."""

import torch

from awr_exp.agents.agent import Agent
from awr_exp.types import Batch, Metrics


class BC(Agent):
    """Maximum likelihood of the data's actions; `actor_iters` steps on each batch."""

    def __init__(self, *args: object, actor_iters: int = 1, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.actor_iters = actor_iters

    @torch.no_grad()
    def update(self, batch: Batch) -> Metrics:
        obs = self.normalize(batch.obs)
        weight = torch.ones_like(batch.reward)
        for _ in range(self.actor_iters):
            metrics = self.actor_step(obs, batch.action, weight)
        return metrics
