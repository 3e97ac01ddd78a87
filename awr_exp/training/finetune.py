"""Fine-tuning: an agent that was trained on a data set goes on by itself, and keeps the data."""

from typing import Any

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.training.callbacks import WarnOfFall
from awr_exp.training.online import Online


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
        env_steps: int,
        eval_interval: int,
        offline_share: float | None,
        offline_share_end: float | None,
        anneal_steps: int | None = None,
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
            callbacks=[WarnOfFall(eval_interval), *options.pop("callbacks", ())],
            **options,
        )
