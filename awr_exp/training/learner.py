"""Some members of an agent that learn together, from a data set or from what they collect."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awr_exp import layout
from awr_exp.agents.agent import Agent
from awr_exp.data import facts
from awr_exp.data.replay import Replay
from awr_exp.data.transitions import Transitions
from awr_exp.envs.worker import HangsError
from awr_exp.errors import UserError
from awr_exp.seeding import draw_noise
from awr_exp.training.collect import Collector
from awr_exp.training.means import Means
from awr_exp.training.steps import Functions, Update

log = logging.getLogger(__name__)

NEWEST = 1_000
"""Observations of one environment that are looked at for what is wrong with them."""


class Schedule:
    """When a learner collects and when it learns.

    unit: what its steps are; pace: steps between which a thread may change to another learner; updates_batches: whether
    it updates the agent batch by batch, so that the agent's `value_iters` and `actor_iters` count.
    """

    unit = "environment step"
    pace = 1
    updates_batches = True

    def turn(self, run: "Learner") -> int:
        """Collect and learn once; the steps taken, over the environments of one member together."""
        raise NotImplementedError

    def functions(self, total: int, compile: str | bool, device: torch.device) -> Functions:
        """What `turn` does with tensors, as fast as it gets, for a run of `total` steps of all members together."""
        raise NotImplementedError


class Learner:
    """Members with what they learn from; its steps are those of its schedule.

    experience: a data set that all members share, or a replay of their own; functions: the schedule's; collector: adds
    to that replay, where anything is collected; anneal_steps: in which all that is annealed gets to its end;
    offline_share: of a batch, from the data that the replay keeps, by step; None: all rows alike.
    """

    def __init__(
        self,
        agent: Agent,
        experience: Transitions | Replay,
        schedule: Schedule,
        functions: Functions,
        batch_size: int,
        collector: Collector | None = None,
        anneal_steps: int | None = None,
        offline_share: Callable[[int], float | None] = lambda step: None,
    ) -> None:
        if batch_size == 1 and agent.compares and schedule.updates_batches:
            raise UserError("trainer.batch_size=1: the actions of a batch are weighed against each other; give more")
        self.agent, self.experience, self.schedule, self.batch_size = agent, experience, schedule, batch_size
        self._collector, self.anneal_steps, self.offline_share = collector, anneal_steps, offline_share
        self._make = functions
        self._make_functions()
        self.means = Means()
        self.step = self.update = self.goal = 0
        self.target: Tensor | None = None
        """Value targets, one number a transition, that a schedule keeps from turn to turn."""
        self.refreshed = 0
        """The replay's `added` when the targets were made."""
        self.error: UserError | None = None
        self.ahead: dict[int, tuple[Tensor, Tensor]] = {}
        """Rows and noise of the block of updates that a schedule is at, by its number."""

    @property
    def collector(self) -> Collector:
        """The collector of a learner that has one."""
        assert self._collector is not None
        return self._collector

    @property
    def functions(self) -> dict[str, Update]:
        """The schedule's, for the memory that the experience is in: a graph that was captured before knows another."""
        if self._made_for is not self.experience.table:
            self._make_functions()
        return self._functions

    def _make_functions(self) -> None:
        self._functions: dict[str, Update] = {n: make(self.agent, self.experience) for n, make in self._make.items()}
        self._made_for = self.experience.table

    def train(self, goal: int) -> None:
        """Learn until `step` is at least `goal`, or give up."""
        self.goal = goal
        while self.step < goal and self.error is None:
            if self.anneal_steps:
                self.agent.anneal(self.step / self.anneal_steps)
            try:
                self.step += self.schedule.turn(self)
            except UserError as error:
                self.error = error
            except HangsError as hangs:
                log.warning("%s", hangs)
                return

    def learn(self, name: str, rows: Tensor, noise: Tensor, *columns: Tensor) -> None:
        """Update on each batch of rows [S, K, B] by one of the functions."""
        self.functions[name](self.means, rows, noise, *columns)
        self.update += len(rows)

    @contextmanager
    def undone_if_left(self) -> Iterator[None]:
        """Inside, what is learnt is undone if an exception ends it: checkpoints are of whole turns."""
        learnt = {name: tensor.clone() for name, tensor in self.agent.state_dict().items()}
        means, update = copy.deepcopy(self.means), self.update
        try:
            yield
        except BaseException:
            self.agent.load_state_dict(learnt)
            self.means, self.update = means, update
            raise

    def noise(self, names: Sequence[object], shape: tuple[int, int]) -> Tensor:
        """`Batch.noise` of shape (steps, B) a member, [steps, K, B, numbers], from each member's own seed."""
        return draw_noise(self.agent.seeds, names, shape, self.agent.noise_size, self.agent.device)

    def slots(self, name: str, count: int, drawn: Callable[..., Tensor], newest: int = 0) -> tuple[Tensor, Tensor]:
        """[count, K, B] slots of the replay, `drawn` by `draw_rows` or `shuffle_rows`, and the batches' noise.

        newest: steps of each environment that are left out.
        """
        replay, names = self.collector.replay, (name, self.step)

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
        slots = replay.slots(slots % replay.envs, slots // replay.envs) if newest else slots
        return slots, self.noise(names, (count, self.batch_size))

    def about_observations(self, member: int) -> str | None:
        """A sentence on what is wrong with the newest observations that a member has collected, if anything is."""
        if not self._collector:
            return None
        replay = self.collector.replay
        spec = replay.spec.single
        newest = replay.schema.read(replay.collected_by(member)[-NEWEST:, 0], "obs").double().cpu().numpy()
        names = layout.column_names(spec.observation, spec.obs_dim)
        coarse = [names[column] for column in np.flatnonzero(layout.coarse(newest))] if len(newest) else []
        return layout.about_coarse(coarse, "in the environment") if coarse else None

    def about_rewards(self, member: int) -> str | None:
        """A sentence on what is wrong with the rewards that a member learns from, if anything is."""
        if not self._collector:
            return self._about_rewards_of_data
        replay = self.collector.replay
        reward, terminated = (
            replay.schema.read(replay.collected_by(member), name) for name in ("reward", "terminated")
        )
        return facts.about_rewards([(reward, terminated)], self.collector.reward_unit, online=True)

    @cached_property
    def _about_rewards_of_data(self) -> str | None:
        data: Any = self.experience
        return facts.of_data(data)

    def read(self) -> list[dict[str, float]]:
        """Each member's mean metrics since the last call."""
        learnt = self.means.read(self.agent.members)
        collected = self.collector.read() if self._collector else [{} for _ in learnt]
        return [one | other for one, other in zip(learnt, collected, strict=True)]

    def count_failures(self, member: int, failures: int) -> None:
        """Keep account of a member's environments that failed elsewhere."""
        if self._collector:
            self.collector.count_failures(member, failures)

    def state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint of a member needs beside the agent's state."""
        own = self.means.state(member)
        if self.target is not None:
            own["target"] = self.target[member : member + 1]
        if self._collector:
            own |= self.collector.replay.state(member) | self.collector.state(member)
        return own

    def metadata(self, member: int) -> dict[str, Any]:
        """The numbers and texts that a member's checkpoint needs beside its tensors."""
        own: dict[str, Any] = {"unit": self.schedule.unit, "step": self.step, "counts": self.means.counts}
        if self._collector:
            finished = self.collector.finished[member]
            own |= {"added": self.collector.replay.added, "refreshed": self.refreshed, "finished": finished}
        return own

    def load(self, metadata: Sequence[dict[str, Any]], state: dict[str, Tensor]) -> None:
        """Go on from the `metadata` and `state` of all of its members.

        Raises UserError for a replay of another size, and ValueError or KeyError for what fits none.
        """
        first = metadata[0]
        self.step, self.update = first["step"], first["update"]
        # Another estimator than before may need none.
        keeps = "target" in state and self.agent.whole_episodes
        self.target = state["target"].to(self.agent.device) if keeps else None
        if self._collector:
            self.refreshed = first["refreshed"]
            try:
                self.collector.replay.load(state, first["added"])
            except ValueError:
                raise UserError(
                    "the run to resume has another replay: give its trainer.envs and trainer.replay_size"
                ) from None
            self.collector.load(state)
            self.collector.finished = [fact["finished"] for fact in metadata]
        if self.target is not None and self.target.shape != (self.agent.members, self.experience.capacity):
            raise ValueError("its value targets are not one number a transition")
        on_device = {name: tensor.to(self.agent.device) for name, tensor in state.items() if name.startswith("sums.")}
        self.means.load(on_device, first["counts"])

    def close(self) -> None:
        if self._collector:
            self.collector.close()
