"""When an online run collects and when it learns. A schedule is one turn of both, and says how many steps it took."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import Replay
from awr_exp.errors import UserError
from awr_exp.ranges import Count, Whole, checked
from awr_exp.seeding import draw_rows, shuffle_rows
from awr_exp.training import native
from awr_exp.training.accelerate import Update, accelerate, pays_off
from awr_exp.training.means import Means
from awr_exp.types import Metrics

if TYPE_CHECKING:
    from awr_exp.training.online import Learner

log = logging.getLogger(__name__)

MANY = 200_000
"""Gradient steps from which compiling several of them as one, which takes longer, pays off."""
AT_ONCE = 8
"""Gradient steps that are then compiled as one."""

Functions = dict[str, Callable[[Agent, Replay], Update]]


def up_to_whole(steps: int, envs: int) -> int:
    """The environment steps of as many whole steps of all environments as have so many."""
    return math.ceil(steps / envs) * envs


class Schedule(Protocol):
    def turn(self, run: "Learner") -> int:
        """Collect and learn once; the steps taken, over the environments of one member together."""

    def check(self, env_steps: int, envs: int, workers: int, data: bool) -> None:
        """Raises UserError where nothing can be learnt in so many steps of so many environments, or without data."""

    def functions(self, env_steps: int, compile: str | bool, device: torch.device) -> Functions:
        """What `turn` does with tensors, as fast as it gets, for a run of so many environment steps of all members."""


@checked("schedule")
@dataclass(frozen=True)
class Phased:
    """Peng et al. 2019, algorithm 1: collect, fit V to the whole replay, then pi.

    samples_per_iteration: environment steps an iteration, rounded up to whole steps of all environments, with which
    the numbers of gradient steps grow; critic_steps, actor_steps: gradient steps an iteration on minibatches;
    normalizer_samples: environment steps from whose observations the normaliser is learnt; overlap: collect the next
    iteration's steps while learning, and so by a policy that is one iteration older.
    """

    samples_per_iteration: Count = 2048
    critic_steps: Count = 200
    actor_steps: Count = 1000
    normalizer_samples: Count = 100_000
    overlap: bool = False

    def check(self, env_steps: int, envs: int, workers: int, data: bool) -> None:
        if self.overlap and not workers:
            raise UserError("schedule.overlap=true collects in other processes: give trainer.workers=1 or more")
        first = up_to_whole(self.samples_per_iteration, envs)
        if self.overlap and env_steps <= first:
            raise UserError(
                f"with schedule.overlap=true the first {first} steps are only collected, "
                f"and trainer.env_steps={env_steps}: give more"
            )

    def turn(self, run: "Learner") -> int:
        agent, replay, before = run.agent, run.replay, run.replay.added
        steps = math.ceil(self.samples_per_iteration / replay.envs)
        if not (self.overlap and before):
            run.collector.collect(steps)
        share = steps * replay.envs / self.samples_per_iteration
        # An agent that comes with data has their normaliser, on which all it knows depends.
        if run.step < self.normalizer_samples and not replay.kept:
            agent.fit_normalizer(*run.collector.obs_statistics())
        if not self.overlap:
            self.learn(run, share)
        elif before:
            run.collector.begin(steps)
            with run.undone_if_left():
                self.learn(run, share)
                run.collector.finish()
        return (replay.added - before) * replay.envs

    def learn(self, run: "Learner", share: float) -> None:
        """This share of the gradient steps of an iteration."""
        agent, replay = run.agent, run.replay
        targets = agent.targets(replay)
        self._descend(run, "critic", math.ceil(share * self.critic_steps), *([targets["target"]] if targets else []))
        advantage = whole_advantage(agent, replay)
        weight = agent.weights(advantage)
        self._descend(run, "actor", math.ceil(share * self.actor_steps), weight)
        run.means.add(agent.health(advantage, weight))

    def _descend(self, run: "Learner", name: str, count: int, *columns: Tensor) -> None:
        """`count` steps on shuffled minibatches of the whole replay, with these targets or weights [K, N]."""
        slots = run.slots(name, count, shuffle_rows)
        run.means.add(run.functions[name](slots, *map(run.replay.spread, columns)), count)
        run.update += count

    def functions(self, env_steps: int, compile: str | bool, device: torch.device) -> Functions:
        updates = env_steps * (self.critic_steps + self.actor_steps) // self.samples_per_iteration
        compiles = pays_off(compile, updates, device)

        def fastest(plain: Callable[..., Metrics], native_steps: Callable[..., Metrics]) -> Callable[..., Update]:
            # Only where it is needed: preparing to compile takes seconds. Once for all agents, which share it.
            fast = cache(lambda: accelerate(plain, compile, updates, device))

            def chosen(agent: Agent, replay: Replay) -> Update:
                if compiles and native.fits(agent) and native.library():
                    return partial(native_steps, agent, replay)
                # Two, since a captured graph is for one number of slots.
                many, one = fast()(agent, replay), fast()(agent, replay)
                return partial(_in_parts, many, one, AT_ONCE if compiles and updates >= MANY else 1)

            return chosen

        return {
            "critic": fastest(critic_steps, native.critic_steps),
            "actor": fastest(actor_steps, native.actor_steps),
        }


def _in_parts(many: Update, one: Update, at_once: int, slots: Tensor, *columns: Tensor) -> Metrics:
    """The sums of metrics of steps on slots [S, K, B]: `many` takes `at_once` of them, and `one` the rest."""
    whole, means = len(slots) - len(slots) % at_once, Means()
    for learn, size, some in ((many, at_once, slots[:whole]), (one, 1, slots[whole:])):
        for part in some.split(size) if len(some) else ():
            means.add(learn(part, *columns))
    return means.sums


def whole_advantage(agent: Agent, replay: Replay) -> Tensor:
    """A(s, a) of all transitions [K, N], with today's critic."""
    columns = agent.targets(replay) or {}

    def of(rows: Tensor) -> Tensor:
        rows = rows.expand(agent.members, -1)
        own = {name: column.gather(1, rows) for name, column in columns.items()}
        return agent.advantage(agent.normalized(replace(replay.sample(rows), **own)))

    with torch.no_grad():
        return torch.cat([of(rows) for rows in torch.arange(len(replay), device=agent.device).split(agent.chunk)], 1)


def critic_steps(agent: Agent, replay: Replay, slots: Tensor, target: Tensor | None = None) -> Metrics:
    """A step for each of slots [S, K, B] of the replay; the sums of their metrics."""
    with torch.no_grad():
        batches = (agent.normalized(replay.take(some, target=target)) for some in slots.unbind())
        return _sum([agent.critic_update(batch) for batch in batches])


def actor_steps(agent: Agent, replay: Replay, slots: Tensor, weight: Tensor) -> Metrics:
    """As `critic_steps`, with weights [K, T * E] of the replay."""
    with torch.no_grad():
        batches = ((agent.normalized(replay.take(some)), weight.gather(1, some)) for some in slots.unbind())
        return _sum([agent.actor_update(*batch) for batch in batches])


def batch_step(agent: Agent, replay: Replay, slots: Tensor, target: Tensor | None = None) -> Metrics:
    """One update on the batch in slots [K, B], toward these targets of the replay, if any."""
    return agent.update(replay.take(slots, target=target))


def _sum(metrics: list[Metrics]) -> Metrics:
    return {name: torch.stack([one[name] for one in metrics]).sum(0) for name in metrics[0]}


@checked("schedule")
@dataclass(frozen=True)
class Interleaved:
    """One update of the agent on one batch every `update_interval` environment steps.

    learning_starts: steps before the first update. Without data to begin with, their actions are random, and the
    normaliser is learnt from them. refresh_interval: steps between refreshes of the targets of estimators that walk
    whole episodes; until the next one, batches leave out what was collected since the last.
    """

    learning_starts: Whole = 1_000
    update_interval: Count = 1
    refresh_interval: Count = 1_000

    def check(self, env_steps: int, envs: int, workers: int, data: bool) -> None:
        if up_to_whole(self.learning_starts, envs) >= env_steps:
            raise UserError(
                f"nothing would be learnt in trainer.env_steps={env_steps}, since "
                f"schedule.learning_starts={self.learning_starts}: lower it, or give more steps"
            )
        if env_steps // self.update_interval == self.learning_starts // self.update_interval:
            # Something is collected all the same, and may be all that is wanted.
            log.warning(
                "nothing is learnt in trainer.env_steps=%d, since schedule.update_interval=%d: lower it, or give more "
                "steps",
                env_steps,
                self.update_interval,
            )
        if not (self.learning_starts or data):
            raise UserError(
                "with schedule.learning_starts=0 there is nothing to learn the normaliser of observations from: "
                "give 1 or more"
            )

    def turn(self, run: "Learner") -> int:
        agent, replay = run.agent, run.replay
        if run.step < self.learning_starts:
            steps = math.ceil((self.learning_starts - run.step) / replay.envs)
            run.collector.collect(steps, random=not replay.kept)
            if not replay.kept:
                agent.fit_normalizer(*run.collector.obs_statistics())
            return steps * replay.envs
        run.collector.collect(1)
        after = run.step + replay.envs
        count = after // self.update_interval - run.step // self.update_interval
        if count:
            self.learn(run, count)
        return replay.envs

    def learn(self, run: "Learner", count: int) -> None:
        """`count` updates."""
        if run.agent.whole_episodes:
            self.refresh(run)
        targets = () if run.target is None else (run.target,)
        for slots in run.slots("batch", count, draw_rows, run.replay.added - run.refreshed if targets else 0):
            run.means.add(run.functions["batch"](slots, *targets))
        run.update += count

    def refresh(self, run: "Learner") -> None:
        """Make targets of the whole replay where there are none, or old ones, or none of what is left of it."""
        agent, replay, since = run.agent, run.replay, run.replay.added - run.refreshed
        if run.target is None or since * replay.envs >= self.refresh_interval or since >= replay.collected:
            targets = agent.targets(replay)
            assert targets is not None
            run.target, run.refreshed = replay.spread(targets["target"]), replay.added

    def functions(self, env_steps: int, compile: str | bool, device: torch.device) -> Functions:
        return {"batch": accelerate(batch_step, compile, env_steps // self.update_interval, device)}
