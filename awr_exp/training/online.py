"""Training on what the policy itself collects."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from awr_exp import layout
from awr_exp.agents.agent import Agent
from awr_exp.data import export
from awr_exp.data.replay import Replay
from awr_exp.envs.make import MakeEnv, collecting, opened
from awr_exp.envs.worker import HangsError
from awr_exp.errors import UserError
from awr_exp.training import health, memory
from awr_exp.training.accelerate import Update
from awr_exp.training.blocks import Team
from awr_exp.training.collect import Collector
from awr_exp.training.means import Means
from awr_exp.training.progress import speaking
from awr_exp.training.recorder import Recorder
from awr_exp.training.schedules import Schedule
from awr_exp.training.trainer import Trainer, signals

log = logging.getLogger(__name__)


SOME = 1_000
"""Observations of one environment that are looked at for what is wrong with them."""
FEW = 8
"""Members a thread from which one more or less makes little difference."""


@dataclass
class Learner:
    """Some members with their environments and replay; its steps are those of the environments."""

    agent: Agent
    schedule: Schedule
    replay: Replay
    collector: Collector
    batch_size: int
    anneal_steps: int
    """In which all that is annealed gets to its end."""
    functions: dict[str, Update]
    """The schedule's, on this agent and replay."""
    offline_share: Callable[[int], float | None] = lambda step: None
    """Of a batch, from the data that the replay keeps, by step; None: all rows alike."""

    turn = 1

    def __post_init__(self) -> None:
        self.means = Means()
        self.step = self.update = 0
        self.target: Tensor | None = None
        """[K, T * E] of the replay, of a schedule that keeps them from turn to turn."""
        self.refreshed = 0
        """The replay's `added` when they were made."""
        self.error: UserError | None = None

    def train(self, goal: int) -> None:
        while self.step < goal and self.error is None:
            self.agent.anneal(self.step / self.anneal_steps)
            try:
                self.step += self.schedule.turn(self)
            except UserError as error:
                self.error = error
            except HangsError as hangs:
                log.warning("%s", hangs)
                return

    @contextmanager
    def undone_if_left(self) -> Iterator[None]:
        """What is learnt within, where it ends with an exception: a checkpoint is of whole turns."""
        learnt = {name: tensor.clone() for name, tensor in self.agent.state_dict().items()}
        sums = {name: value.clone() for name, value in self.means.sums.items()}
        counts, update = dict(self.means.counts), self.update
        try:
            yield
        except BaseException:
            self.agent.load_state_dict(learnt)
            self.means.sums, self.means.counts, self.update = sums, counts, update
            raise

    def slots(self, name: str, count: int, drawn: Callable[..., Tensor], newest: int = 0) -> Tensor:
        """[count, K, B] slots of the replay, `drawn` by `draw_rows` or `shuffle_rows` from each member's own seed.

        newest: steps of each environment that are left out.
        """
        replay, names = self.replay, (name, self.step)

        def draw(names: Sequence[object], steps: int, size: int) -> Tensor:
            return drawn(self.agent.seeds, names, steps * replay.envs, (count, size), self.agent.device)

        share = self.offline_share(self.step)
        if share is None:
            slots = draw(names, replay.steps - newest, self.batch_size)
        else:
            offline = round(share * self.batch_size)
            old = draw((*names, "offline"), replay.kept, offline)
            new = draw(names, replay.collected - newest, self.batch_size - offline)
            slots = torch.cat([old, new + replay.kept * replay.envs], -1)
        # All slots alike need no order.
        return replay.by_age(slots) if newest else slots

    def read(self) -> list[dict[str, float]]:
        learnt, collected = self.means.read(self.agent.members), self.collector.read()
        return [one | other for one, other in zip(learnt, collected, strict=True)]

    def state(self, member: int) -> dict[str, Tensor]:
        own = {"replay": self.replay.state(member)}
        own |= {} if self.target is None else {"target": self.target[member : member + 1]}
        return own | self.collector.state(member) | self.means.state(member)

    def facts(self, member: int) -> dict[str, Any]:
        own = {"counts": self.means.counts, "finished": self.collector.finished[member]}
        return own | {"step": self.step, "added": self.replay.added, "refreshed": self.refreshed}

    def load(self, facts: list[dict[str, Any]], state: dict[str, Tensor]) -> None:
        """Go on from the `facts` and `state` of all of its members.

        Raises UserError for a replay of another size, and ValueError or KeyError for what fits none.
        """
        first = facts[0]
        self.step, self.update, self.refreshed = first["step"], first["update"], first.get("refreshed", 0)
        # Another estimator than before may need none.
        keeps = "target" in state and self.agent.whole_episodes
        self.target = state["target"].to(self.agent.device) if keeps else None
        try:
            self.replay.load(state["replay"], first["added"])
        except ValueError:
            raise UserError(
                "the run to resume has another replay: give its trainer.envs and trainer.replay_size"
            ) from None
        if self.target is not None and self.target.shape != self.replay.ring.flatten(1, 2).shape[:2]:
            raise ValueError("its value targets are not one number a transition")
        self.collector.load(state)
        self.collector.finished = [fact["finished"] for fact in facts]
        on_device = {name: tensor.to(self.agent.device) for name, tensor in state.items() if name.startswith("sums.")}
        self.means.load(on_device, first["counts"])


class Online(Trainer):
    """`env_steps` environment steps a member, in turns of collecting and learning; all intervals count such steps.

    envs: environments a member; workers: processes that step them, 0 for the one that trains; replay_size:
    transitions kept of each member; anneal_steps: in which what is annealed gets to its end, None: all of them;
    recorders: one a member, if any; options: other arguments of Trainer. Members are divided among the CPU's threads,
    and each part has a worker of its own. Raises UserError without an environment, for one that cannot be recorded, for
    an agent without values, or for a replay that is too large.
    """

    unit = "environment step"
    reward_scale = 1.0

    def offline_share(self, step: int) -> float | None:
        """See `Learner`."""
        return None

    def __init__(
        self,
        agent: Agent,
        make_env: MakeEnv | None,
        schedule: Schedule,
        env_steps: int,
        envs: int,
        workers: int,
        replay_size: int,
        batch_size: int,
        compile: str | bool,
        anneal_steps: int | None = None,
        recorders: Sequence[Recorder] = (),
        **options: Any,
    ) -> None:
        name = f"trainer={type(self).__name__.lower()}"
        if make_env is None:
            raise UserError(f"{name} collects in an environment: choose one, such as env=cartpole")
        if not agent.value_iters:
            raise UserError(f"{name} needs an agent that learns values: choose agent=awr")
        super().__init__(agent, make_env=make_env, total=env_steps, **options)
        parts = split(agent, torch.get_num_threads())
        if len(parts) > 1 and agent.player() is not None:
            # Threads that stepped environments themselves would wait for one another.
            workers = max(1, workers // len(parts))
        schedule.check(env_steps, envs, workers, self.data is not None)
        judge = make_env
        if self.data:
            info: Any = self.data.info
            make_env = collecting(make_env, info, self.data.spec)
        if recorders:
            with opened(make_env) as env:
                export.check_env(env)
        kept = len(self.data) if self.data else 0
        memory.check_replay(agent.spec, agent.members, kept + replay_size, agent.device)
        functions = schedule.functions(env_steps * agent.members, compile, agent.device)
        self.make_env, self.recorders, self.anneal_steps = make_env, recorders, anneal_steps or env_steps
        self.evaluates_here = judge is make_env

        def learner(members: slice) -> Learner:
            own = agent.some(members)
            replay = Replay(agent.spec, own.members, envs, replay_size, agent.device, self.data)
            learn = {name: function(own, replay) for name, function in functions.items()}
            runs = list(zip(self.folders, self.names, strict=False))[members]
            collector = Collector(
                make_env, own, replay, workers, self.reward_scale, recorders[members], runs, self.stopped
            )
            return Learner(own, schedule, replay, collector, batch_size, self.anneal_steps, learn, self.offline_share)

        self.learner, self.learners = learner, [learner(members) for members in parts]

    @property
    def places(self) -> list[tuple[Learner, int]]:
        """Of each member."""
        return [(learner, row) for learner in self.learners for row in range(learner.agent.members)]

    def run(self) -> None:
        with Team(self.learners, torch.get_num_threads()) as self.team:
            super().run()
        # All is trained: a signal waits for what there is to write, a second one does not.
        with signals() as self.received:
            for member, recorder in enumerate(self.recorders):
                if self.failed[member] is not None:
                    # Resumed once it is mended, it goes on recording.
                    continue
                with speaking(self.folders[member], self.names[member]):
                    # What was reached in another environment is no score of this one.
                    best = self.best[member] if self.evaluates_here else -math.inf
                    unwritten = recorder.finish(self.make_env, best)
                    if unwritten is not None:
                        log.error("error: %s", unwritten)
                        self.lost[member] = self.lost[member] or unwritten
            self.leave()

    def train(self, goal: int, stopped: Callable[[], object], progress: Callable[[int], None]) -> int:
        step = self.team.train(goal, stopped, progress)
        self.update = max(learner.update for learner in self.learners)
        parts = [part for learner in self.learners for part in self.divided(learner)]
        if len(parts) > len(self.learners):
            self.learners = self.team.blocks = parts
            return self.train(goal, stopped, progress)
        for member, (learner, _) in enumerate(self.places):
            if learner.error is not None:
                self.fail(member, learner.error)
        return step

    def divided(self, part: Learner) -> list[Learner]:
        """Where a part gave up, its members by themselves, from where they were: it may be the fault of one."""
        members = [member for member, (learner, _) in enumerate(self.places) if learner is part]
        if part.error is None or len(members) == 1 or None not in [self.failed[member] for member in members]:
            return [part]
        alone: list[Learner] = []
        try:
            for row, member in enumerate(members):
                alone.append(self.learner(slice(member, member + 1)))
                alone[-1].load([part.facts(row) | {"update": part.update}], part.state(row))
        except (UserError, HangsError):
            for learner in alone:
                learner.collector.close()
            return [part]
        part.collector.close()
        return alone

    def of_rewards(self, member: int) -> Iterator[tuple[str, str]]:
        learner, row = self.places[member]
        replay = learner.replay
        reward, terminated = (replay.columns.read(replay.rows(row), name) for name in ("reward", "terminated"))
        return health.of_rewards(reward, terminated, self.reward_scale, online=True)

    def complaints(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        yield from super().complaints(member, metrics)
        learner, row = self.places[member]
        spec = self.agent.spec
        newest = learner.replay.columns.read(learner.replay.rows(row)[-SOME:, 0], "obs")
        yield from health.of_observations(newest, layout.column_names(spec.observation, spec.obs_dim))

    def value_iters(self) -> int | None:
        return super().value_iters() if "batch" in self.learners[0].functions else None

    def read(self) -> list[dict[str, float]]:
        return [metrics for learner in self.learners for metrics in learner.read()]

    def count_failures(self, member: int, failures: int) -> None:
        learner, row = self.places[member]
        learner.collector.count_failures(row, failures)

    def speeds(self, seconds: float) -> dict[str, float]:
        return super().speeds(seconds) | {"collect/env_steps_per_second": (self.step - self.started[2]) / seconds}

    def member_state(self, member: int) -> dict[str, Tensor]:
        learner, row = self.places[member]
        return learner.state(row)

    def member_update(self, member: int) -> int:
        return self.places[member][0].update

    def member_env_steps(self, member: int) -> int:
        return self.places[member][0].step

    def member_facts(self, member: int) -> dict[str, Any]:
        learner, row = self.places[member]
        recorded = {"recorder": self.recorders[member].facts()} if self.recorders else {}
        return learner.facts(row) | recorded

    def load(self, facts: list[dict[str, Any]], state: dict[str, Tensor]) -> None:
        if "step" not in facts[0]:
            raise UserError(
                "the run to resume learnt from a data set alone: choose trainer=finetune resume_policy=<its folder>"
            )
        self.step, self.update = facts[0]["step"], facts[0]["update"]
        actions = _split_actions(state)
        begin = 0
        for learner in self.learners:
            own = slice(begin, begin + learner.agent.members)
            begin = own.stop
            mine = {name: tensor[own] for name, tensor in state.items() if name != "collect.actions"}
            learner.load(facts[own], mine | {"collect.actions": torch.cat(actions[own])})
        # Only once everything fits: it cuts off what came later.
        for recorder, fact in zip(self.recorders, facts, strict=False):
            if "recorder" in fact:
                recorder.resume(fact["recorder"])

    def close(self) -> None:
        for learner in self.learners:
            learner.collector.close()


def split(agent: Agent, threads: int) -> list[slice]:
    """The parts of an agent's members that learn side by side: one a thread, all in one on a GPU.

    A few members that do not divide evenly are a part each, which threads take in turns: none waits for another's two.
    """
    count = min(threads, agent.members) if agent.device.type == "cpu" else 1
    if agent.members % count and agent.members < FEW * count:
        count = agent.members
    ends = [part * agent.members // count for part in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(ends)]


def _split_actions(state: dict[str, Tensor]) -> list[Tensor]:
    """Each member's actions of its open episodes, which are of different number."""
    return list(state["collect.actions"].split(state["collect.length"].sum(1).tolist()))
