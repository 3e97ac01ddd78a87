"""Training on what the policy itself collects."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from awr_exp.agents.awr import AWR
from awr_exp.data.replay import Replay
from awr_exp.envs.make import MakeEnv
from awr_exp.errors import UserError
from awr_exp.training.accelerate import accelerate
from awr_exp.training.collect import Collector
from awr_exp.training.means import Means
from awr_exp.training.schedules import Schedule
from awr_exp.training.trainer import Trainer


class Online(Trainer):
    """`env_steps` environment steps a member, in turns of collecting and learning; all intervals count such steps.

    envs: environments a member; replay_size: transitions kept of each member; options: other arguments of Trainer.
    Raises UserError without an environment, or for an agent that learns no values.
    """

    agent: AWR
    unit = "environment step"

    def __init__(
        self,
        agent: AWR,
        make_env: MakeEnv | None,
        schedule: Schedule,
        env_steps: int,
        envs: int,
        replay_size: int,
        batch_size: int,
        compile: str | bool,
        **options: Any,
    ) -> None:
        if make_env is None:
            raise UserError("trainer=online collects in an environment: choose one, such as env=cartpole")
        if not isinstance(agent, AWR):
            raise UserError("trainer=online needs an agent that learns values: choose agent=awr")
        super().__init__(agent, make_env=make_env, total=env_steps, **options)
        self.schedule, self.batch_size = schedule, batch_size
        self.replay = Replay(agent.spec, agent.members, envs, replay_size, agent.device)
        self.collector = Collector(make_env, agent, self.replay)
        self.means = Means()
        self.update = 0
        updates = schedule.updates(env_steps) * agent.members
        methods = (AWR.update, AWR.update_critic, AWR.update_actor)
        self.update_agent, self.update_critic, self.update_actor = (
            accelerate(method, compile, updates, agent.device)(agent) for method in methods
        )

    def train(self, goal: int, stopped: Callable[[], object], progress: Callable[[int], None]) -> int:
        while self.step < goal and not stopped():
            self.step += self.schedule.turn(self)
            progress(self.step)
        return self.step

    def read(self) -> list[dict[str, float]]:
        learnt, collected = self.means.read(self.agent.members), self.collector.read()
        return [one | other for one, other in zip(learnt, collected, strict=True)]

    @property
    def env_steps(self) -> int:
        return self.step

    def member_state(self, member: int) -> dict[str, Tensor]:
        own = {"replay": self.replay.state(member)}
        return own | self.collector.state(member) | self.means.state(member)

    def member_facts(self, member: int) -> dict[str, Any]:
        own = self.collector.finished[member]
        return {"step": self.step, "added": self.replay.added, "counts": self.means.counts, "finished": own}

    def load(self, facts: list[dict[str, Any]], state: dict[str, Tensor]) -> None:
        first = facts[0]
        if state["replay"].shape[1:] != (min(first["added"], self.replay.ring.shape[1]), *self.replay.ring.shape[2:]):
            raise UserError("the run to resume has another replay: give its trainer.envs and trainer.replay_size")
        self.step, self.update = first["step"], first["update"]
        self.replay.load(state["replay"], first["added"])
        self.collector.load(state)
        self.collector.finished = [fact["finished"] for fact in facts]
        self.means.load(state, first["counts"])

    def close(self) -> None:
        self.collector.close()
