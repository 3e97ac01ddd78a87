"""Fine-tuning: an agent that was trained on a data set goes on by itself, and keeps the data."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.ranges import Count, Unit
from awr_exp.training.callbacks import Callback
from awr_exp.training.online import Online
from awr_exp.training.trainer import Trainer


class WatchForFall(Callback):
    """Keeps the return that a run begins with and the lowest one since, and warns of a fall. It follows Evaluate."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.began: list[list[float]] = []
        """Returns of each member's first evaluation."""

    def begin(self, trainer: Trainer) -> None:
        self.owed = not self.began

    def call(self, trainer: Trainer) -> None:
        if any(run.returns for run in trainer.runs):
            self.began = self.began or [list(run.returns) for run in trainer.runs]
        for member, (before, run) in enumerate(zip(self.began, trainer.runs, strict=False)):
            now = run.returns
            if before and trainer.step:
                lowest = min(run.latest.get("eval/return_lowest", np.inf), float(np.mean(now)))
                trainer.log(member, {"eval/return_lowest": lowest})
            elif before:
                trainer.log(member, {"eval/return_at_start": float(np.mean(before))})
            # By more than is to be seen in the sentence, too.
            if before and np.mean(now) < np.mean(before) - np.std(before) - np.std(now) - 0.01 * abs(np.mean(before)):
                fell = f"from the {np.mean(before):.1f} that it began with to {np.mean(now):.1f}"
                beta = "a larger agent.beta, " if trainer.agent.beta_matters else ""
                advice = f"try {beta}a larger trainer.offline_share or a smaller agent.actor_lr"
                trainer.warn(member, "fell", f"the return fell {fell}; {advice}")

    def metadata(self, member: int) -> dict[str, Any]:
        return {"began": self.began[member] if self.began else []}

    def load(self, metadata: Sequence[dict[str, Any]]) -> None:
        self.began = [fact["began"] for fact in metadata] if metadata[0]["began"] else []


class Finetune(Online):
    """Online training of a trained agent; its replay begins with the data, which are never overwritten.

    offline_share: of each batch, drawn from the data; None: all rows alike; offline_share_end: what that becomes, step
    by step, over the first `anneal_steps` environment steps. The policy is evaluated before it collects, and a fall
    below that is said. Rewards are scaled as the data's are, and observations normalised as the agent has learnt it.
    options: other arguments of Online. Raises UserError where the data are fewer than the environments.
    """

    def __init__(
        self,
        agent: Agent,
        data: Transitions,
        env_steps: Count,
        eval_interval: Count,
        offline_share: Unit | None,
        offline_share_end: Unit | None,
        anneal_steps: Count | None = None,
        **options: Any,
    ) -> None:
        if offline_share is None and offline_share_end is not None:
            raise UserError("trainer.offline_share_end needs a trainer.offline_share to begin with")
        if len(data) < options["envs"]:
            raise UserError(
                f"trainer.envs={options['envs']} environments cannot share the data set's {len(data)} transitions: "
                "give fewer"
            )

        def share(step: int) -> float | None:
            if offline_share is None or offline_share_end is None:
                return offline_share
            return offline_share + (offline_share_end - offline_share) * min(1.0, step / (anneal_steps or env_steps))

        super().__init__(
            agent,
            env_steps=env_steps,
            eval_interval=eval_interval,
            anneal_steps=anneal_steps,
            data=data,
            offline_share=share,
            evaluates_first=True,
            callbacks=[WatchForFall(eval_interval), *options.pop("callbacks", ())],
            **options,
        )
