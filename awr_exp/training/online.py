"""Training on what the policy itself collects."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from awr_exp.agents.agent import Agent
from awr_exp.data import export
from awr_exp.data.replay import Replay
from awr_exp.data.transitions import Transitions
from awr_exp.envs.build import MakeEnv, collecting, opened
from awr_exp.errors import UserError
from awr_exp.ranges import Count, Whole
from awr_exp.training import memory, team
from awr_exp.training.callbacks import Callback
from awr_exp.training.collect import Collector
from awr_exp.training.learner import Learner
from awr_exp.training.recorder import Record
from awr_exp.training.run import Run
from awr_exp.training.schedules import Interleaved, Phased
from awr_exp.training.trainer import Trainer
from awr_exp.types import OWN_UNIT


class Online(Trainer):
    """`env_steps` environment steps a member, in turns of collecting and learning; all intervals count such steps.

    envs: environments a member; workers: processes that step them, 0 for the one that trains; replay_size:
    transitions kept of each member; anneal_steps: in which what is annealed gets to its end, None: all of them; data:
    what the replay begins with and keeps; offline_share: of a batch, from the data, by step; options: other arguments
    of Trainer. Members are divided among the CPU's threads, and each part has a worker of its own. Raises UserError
    without an environment, for one that cannot be recorded, for an agent without values, or for a replay that is too
    large.
    """

    def __init__(
        self,
        agent: Agent,
        make_env: MakeEnv | None,
        schedule: Phased | Interleaved,
        runs: Sequence[Run],
        env_steps: Count,
        envs: Count,
        workers: Whole,
        replay_size: Count,
        batch_size: Count,
        compile: Literal["auto", True, False],
        anneal_steps: Count | None = None,
        data: Transitions | None = None,
        offline_share: Callable[[int], float | None] = lambda step: None,
        callbacks: Sequence[Callback] = (),
        **options: Any,
    ) -> None:
        place = _place(type(self).__name__.lower(), agent, make_env, runs)
        parts = team.by_thread(agent, torch.get_num_threads())
        if len(parts) > 1 and agent.numpy_policy() is not None:
            # Threads that stepped environments themselves would wait for one another.
            workers = max(1, workers // len(parts))
        schedule.check(env_steps, envs, workers, data is not None)
        memory.check_replay(agent.spec, agent.members, (len(data) if data else 0) + replay_size, agent.device)
        functions = schedule.functions(env_steps * agent.members, compile, agent.device)
        unit, anneal_steps = data.info.reward_unit if data else OWN_UNIT, anneal_steps or env_steps

        def learner(members: slice) -> Learner:
            own = agent.shard(members)
            replay = Replay(agent.spec, own.members, envs, replay_size, agent.device, data)
            collector = Collector(place, own, replay, workers, unit, runs[members], self.stopped)
            return Learner(own, replay, schedule, functions, batch_size, collector, anneal_steps, offline_share)

        callbacks = [*callbacks, Record(place, runs, evaluated=place is make_env)]
        super().__init__(
            agent, schedule, learner, parts, make_env, runs, env_steps, callbacks=callbacks, data=data, **options
        )


def _place(trainer: str, agent: Agent, make_env: MakeEnv | None, runs: Sequence[Run]) -> MakeEnv:
    """What makes the environments that a trainer collects in; UserError where it cannot train this agent, or record."""
    if make_env is None:
        raise UserError(f"trainer={trainer} collects in an environment: choose one, such as env=cartpole")
    if not agent.value_iters:
        raise UserError(f"trainer={trainer} needs an agent that learns values: choose agent=awr")
    place = collecting(make_env)
    if any(run.recorder for run in runs):
        with opened(place) as env:
            export.check_env(env)
    return place
