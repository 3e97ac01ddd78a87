"""Training on a fixed data set."""

from typing import Any, Literal

import torch

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.envs.build import MakeEnv
from awr_exp.ranges import Count
from awr_exp.training import memory, team
from awr_exp.training.learner import Learner
from awr_exp.training.schedules import FixedData
from awr_exp.training.trainer import Trainer


class Offline(Trainer):
    """`updates` updates on batches from `data`, in parts of members that fit the cache; all intervals count updates.

    anneal_updates: over which learning rates fall, see `Agent.anneal_over`; None: all of them. options: other arguments
    of Trainer.
    """

    def __init__(
        self,
        agent: Agent,
        data: Transitions,
        make_env: MakeEnv | None,
        updates: Count,
        batch_size: Count,
        refresh_interval: Count,
        compile: Literal["auto", True, False],
        anneal_updates: Count | None = None,
        **options: Any,
    ) -> None:
        if agent.whole_episodes:
            memory.check_targets(agent.members, len(data), agent.device)
        agent.anneal_over(anneal_updates or updates)
        schedule = FixedData(refresh_interval)
        functions = schedule.functions(updates * agent.members, compile, agent.device)
        super().__init__(
            agent,
            schedule,
            lambda members: Learner(agent.shard(members), data, schedule, functions, batch_size),
            team.by_cache(agent, torch.get_num_threads()),
            make_env,
            total=updates,
            data=data,
            **options,
        )
