"""From offline to online: an agent that was trained on a data set goes on by itself, and keeps the data."""

from typing import Any

import numpy as np

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.ranges import Unit
from awr_exp.training.online import Online
from awr_exp.training.progress import Bar


class Finetune(Online):
    """Online training of a trained agent; its replay begins with the data, which are never overwritten.

    offline_share: of each batch, drawn from the data; None: all rows alike; offline_share_end: what that becomes, step
    by step, over the first `anneal_steps` environment steps. The policy is evaluated before it collects, and a fall
    below that is said. Rewards are scaled as the data's are, and observations normalised as the agent has learnt it.
    options: other arguments of Online. Raises UserError where the data are fewer than the environments.
    """

    evaluates_first = True

    def __init__(
        self,
        agent: Agent,
        data: Transitions,
        offline_share: Unit | None,
        offline_share_end: Unit | None,
        **options: Any,
    ) -> None:
        if offline_share is None and offline_share_end is not None:
            raise UserError("trainer.offline_share_end needs a trainer.offline_share to begin with")
        if len(data) < options["envs"]:
            raise UserError(
                f"trainer.envs={options['envs']} environments cannot share the data set's {len(data)} transitions: "
                "give fewer"
            )
        self.data, self.reward_scale = data, data.info.reward_scale
        self.share = (offline_share, offline_share if offline_share_end is None else offline_share_end)
        self.began: list[list[float]] = []
        super().__init__(agent, **options)

    def offline_share(self, step: int) -> float | None:
        begin, end = self.share
        if begin is None or end is None:
            return None
        return begin + (end - begin) * min(1.0, step / self.anneal_steps)

    def evaluate(self, bar: Bar) -> None:
        super().evaluate(bar)
        self.began = self.began or [list(returns) for returns in self.returns]
        for member, (before, now) in enumerate(zip(self.began, self.returns, strict=True)):
            if before and np.mean(now) < np.mean(before) - np.std(before) - np.std(now):
                self.warn(
                    member,
                    "fell",
                    f"the return fell from the {np.mean(before):.1f} that it began with to {np.mean(now):.1f}; "
                    "try a larger trainer.offline_share, a larger agent.beta or a smaller agent.actor_lr",
                )

    def member_facts(self, member: int) -> dict[str, Any]:
        return super().member_facts(member) | {"began": self.began[member] if self.began else []}

    def load(self, facts: list[dict[str, Any]], state: dict[str, Any]) -> None:
        super().load(facts, state)
        self.began = [fact["began"] for fact in facts] if facts[0]["began"] else []
