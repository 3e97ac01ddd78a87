"""When an online run collects and when it learns. A schedule is one turn of both, and says how many steps it took."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.math import weights
from awr_exp.seeding import draw_rows

if TYPE_CHECKING:
    from awr_exp.training.online import Online


class Schedule(Protocol):
    def turn(self, run: "Online") -> int:
        """Collect and learn once; the steps taken, over the environments of one member together."""

    def updates(self, env_steps: int) -> int:
        """About how many gradient steps a run of this many environment steps takes."""


@dataclass(frozen=True)
class Phased:
    """Peng et al. 2019, algorithm 1: collect, fit V to the whole replay, then pi.

    samples_per_iteration: environment steps an iteration, rounded up to whole steps of all environments, with which
    the numbers of gradient steps grow; critic_steps, actor_steps: gradient steps an iteration on minibatches;
    normalizer_samples: environment steps from whose observations the normaliser is learnt.
    """

    samples_per_iteration: int = 2048
    critic_steps: int = 200
    actor_steps: int = 1000
    normalizer_samples: int = 100_000

    def turn(self, run: "Online") -> int:
        agent, replay = run.agent, run.replay
        steps = math.ceil(self.samples_per_iteration / replay.envs)
        run.collector.collect(steps)
        collected = steps * replay.envs
        if run.step < self.normalizer_samples:
            agent.fit_normalizer(*run.collector.obs_statistics())
        share = collected / self.samples_per_iteration
        target, _ = agent.targets(replay)
        for rows in _minibatches(run, "critic", math.ceil(share * self.critic_steps)):
            run.means.add(run.update_critic(replay.sample(rows, target)))
        target, value = agent.targets(replay)
        advantage = target - value
        weight = agent.weights(advantage)
        for rows in _minibatches(run, "actor", math.ceil(share * self.actor_steps)):
            run.means.add(run.update_actor(replay.sample(rows, weight=weight)))
        run.means.add(
            {
                "mean_value": value.mean(1),
                "mean_advantage": advantage.mean(1),
                "std_advantage": advantage.std(1, correction=0),
                **weights.health(weight, agent.max_weight),
            }
        )
        return collected

    def updates(self, env_steps: int) -> int:
        return env_steps * (self.critic_steps + self.actor_steps) // self.samples_per_iteration


@dataclass(frozen=True)
class Interleaved:
    """One update of the agent on one batch every `update_interval` environment steps.

    learning_starts: steps of random actions before the first update, from which the normaliser is learnt.
    """

    learning_starts: int = 1_000
    update_interval: int = 1

    def turn(self, run: "Online") -> int:
        agent, replay = run.agent, run.replay
        if not agent.advantage.one_step:
            raise UserError(
                "schedule=interleaved learns from single transitions: choose advantage=td or schedule=phased"
            )
        if run.step < self.learning_starts:
            steps = math.ceil((self.learning_starts - run.step) / replay.envs)
            run.collector.collect(steps, random=True)
            agent.fit_normalizer(*run.collector.obs_statistics())
            return steps * replay.envs
        run.collector.collect(1)
        after = run.step + replay.envs
        count = after // self.update_interval - run.step // self.update_interval
        for rows in _minibatches(run, "batch", count):
            run.means.add(run.update_agent(replay.sample(rows)))
        return replay.envs

    def updates(self, env_steps: int) -> int:
        return env_steps // self.update_interval


def _minibatches(run: "Online", name: str, count: int) -> Iterator[Tensor]:
    """`count` times rows [K, B] of the replay, with replacement, each member's from a seed of its own."""
    shape, names = (count, run.batch_size), (name, run.step)
    for rows in draw_rows(run.agent.seeds, names, len(run.replay), shape, run.agent.device):
        run.update += 1
        yield rows
