"""When a run collects and when it learns. A schedule is one turn of both, and says how many steps it took."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.ranges import Count, Whole, checked
from awr_exp.seeding import draw_rows, shuffle_rows
from awr_exp.training import native, steps
from awr_exp.training.learner import Learner, Schedule
from awr_exp.training.steps import Functions, in_runs, one_by_one

log = logging.getLogger(__name__)

ROW_BLOCK = 64
"""Updates whose rows are drawn at once. Block b of a member depends on its seed and b alone: nothing to save."""


def up_to_whole(steps: int, envs: int) -> int:
    """`steps` rounded up to a whole number of steps of all environments."""
    return math.ceil(steps / envs) * envs


@dataclass(frozen=True)
class FixedData(Schedule):
    """Offline: one update of the agent on one batch of a data set a turn, and nothing is collected.

    refresh_interval: updates between refreshes of the targets of estimators that walk whole episodes.
    """

    refresh_interval: int

    unit = "update"
    pace = 16

    def turn(self, run: Learner) -> int:
        agent, data = run.agent, run.experience
        # Resumed with another estimator than before, it may have none.
        if agent.whole_episodes and (run.target is None or run.step % self.refresh_interval == 0):
            # The old ones go first: there is room for one number a transition rather than two.
            run.target = None
            targets = agent.targets(data)
            assert targets is not None
            run.target = targets["target"]
        # One call, which may be one of C++, for as many updates as nothing comes between.
        refreshed = self.refresh_interval - run.step % self.refresh_interval
        rows, noise = (drawn[: min(refreshed, run.goal - run.step)] for drawn in self._drawn(run))
        run.learn("batch", rows, noise, *([] if run.target is None else [run.target]))
        return len(rows)

    def _drawn(self, run: Learner) -> tuple[Tensor, Tensor]:
        """Rows [S, K, B] and noise of the next updates, as many as are drawn."""
        block, place = divmod(run.step, ROW_BLOCK)
        if block not in run.ahead:
            shape, agent = (ROW_BLOCK, run.batch_size), run.agent
            data: Any = run.experience
            rows = draw_rows(agent.seeds, (block,), len(data), shape, agent.device)
            data.expect(rows)
            run.ahead = {block: (rows, run.noise((block,), shape))}
        rows, noise = run.ahead[block]
        return rows[place:], noise[place:]

    def functions(self, total: int, compile: str | bool, device: torch.device) -> Functions:
        return {"batch": one_by_one(steps.update, steps.sampled, compile, total, device)}


@checked("schedule")
@dataclass(frozen=True)
class Phased(Schedule):
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

    updates_batches = False

    def check(self, env_steps: int, envs: int, workers: int, data: bool) -> None:
        """Raises UserError where nothing can be learnt in so many steps of so many environments."""
        if self.overlap and not workers:
            raise UserError("schedule.overlap=true collects in other processes: give trainer.workers=1 or more")
        first = up_to_whole(self.samples_per_iteration, envs)
        if self.overlap and env_steps <= first:
            raise UserError(
                f"with schedule.overlap=true the first {first} steps are only collected, "
                f"and trainer.env_steps={env_steps}: give more"
            )

    def turn(self, run: Learner) -> int:
        agent, collector, replay = run.agent, run.collector, run.collector.replay
        count, before = math.ceil(self.samples_per_iteration / replay.envs), replay.added
        if not (self.overlap and before):
            collector.collect(count)
        share = count * replay.envs / self.samples_per_iteration
        # An agent that comes with data has their normaliser, on which all it knows depends.
        if run.step < self.normalizer_samples and not replay.kept:
            agent.fit_normalizer(*collector.obs_statistics())
        if not self.overlap:
            self.learn(run, share)
        elif before:
            collector.begin(count)
            with run.undone_if_left():
                self.learn(run, share)
                collector.finish()
        return (replay.added - before) * replay.envs

    def learn(self, run: Learner, share: float) -> None:
        """Take this share of the gradient steps of an iteration."""
        agent, replay = run.agent, run.collector.replay
        targets = agent.targets(replay)
        self._descend(run, "critic", math.ceil(share * self.critic_steps), *([targets["target"]] if targets else []))
        advantage = steps.whole_advantage(agent, replay, run.step)
        weight = agent.weights(advantage)
        self._descend(run, "actor", math.ceil(share * self.actor_steps), weight)
        run.means.add(agent.health(advantage, weight))

    def _descend(self, run: Learner, name: str, count: int, *columns: Tensor) -> None:
        """Take `count` steps on shuffled minibatches of the whole replay, with these targets or weights [K, N]."""
        drawn = run.slots(name, count, shuffle_rows)
        run.means.add(run.functions[name](*drawn, *map(run.collector.replay.spread, columns)), count)
        run.update += count

    def functions(self, total: int, compile: str | bool, device: torch.device) -> Functions:
        updates = total * (self.critic_steps + self.actor_steps) // self.samples_per_iteration
        return {
            "critic": in_runs(steps.critic_steps, native.critic_steps, compile, updates, device),
            "actor": in_runs(steps.actor_steps, native.actor_steps, compile, updates, device),
        }


@checked("schedule")
@dataclass(frozen=True)
class Interleaved(Schedule):
    """One update of the agent on one batch every `update_interval` environment steps.

    learning_starts: steps before the first update. Without data to begin with, their actions are random, and the
    normaliser is learnt from them. refresh_interval: steps between refreshes of the targets of estimators that walk
    whole episodes; until the next one, batches leave out what was collected since the last.
    """

    learning_starts: Whole = 1_000
    update_interval: Count = 1
    refresh_interval: Count = 1_000

    def check(self, env_steps: int, envs: int, workers: int, data: bool) -> None:
        """Raises UserError where nothing can be learnt in so many steps of so many environments, or without data."""
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

    def turn(self, run: Learner) -> int:
        agent, collector, replay = run.agent, run.collector, run.collector.replay
        if run.step < self.learning_starts:
            count = math.ceil((self.learning_starts - run.step) / replay.envs)
            collector.collect(count, random=not replay.kept)
            if not replay.kept:
                agent.fit_normalizer(*collector.obs_statistics())
            return count * replay.envs
        collector.collect(1)
        after = run.step + replay.envs
        count = after // self.update_interval - run.step // self.update_interval
        if count:
            self.learn(run, count)
        return replay.envs

    def learn(self, run: Learner, count: int) -> None:
        """Update `count` times."""
        if run.agent.whole_episodes:
            self.refresh(run)
        targets = () if run.target is None else (run.target,)
        newest = run.collector.replay.added - run.refreshed if targets else 0
        run.learn("batch", *run.slots("batch", count, draw_rows, newest), *targets)

    def refresh(self, run: Learner) -> None:
        """Make targets of the whole replay where there are none, or old ones, or none of what is left of it."""
        agent, replay = run.agent, run.collector.replay
        since = replay.added - run.refreshed
        if run.target is None or since * replay.envs >= self.refresh_interval or since >= replay.collected:
            targets = agent.targets(replay)
            assert targets is not None
            run.target, run.refreshed = replay.spread(targets["target"]), replay.added

    def functions(self, total: int, compile: str | bool, device: torch.device) -> Functions:
        return {"batch": one_by_one(steps.batch_step, steps.slots_of, compile, total // self.update_interval, device)}
