"""The one trainer: learners learn, and between their steps callbacks report, evaluate and keep what was learnt."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

import torch

from awr_exp.agents.agent import Agent
from awr_exp.agents.best_of import BestOf, Evaluated
from awr_exp.data.transitions import Transitions
from awr_exp.envs.build import MakeEnv
from awr_exp.envs.worker import HangsError
from awr_exp.errors import UserError
from awr_exp.ranges import Count, checked
from awr_exp.training import checkpoint
from awr_exp.training.callbacks import Advise, Callback, Checkpoint, Evaluate, Report
from awr_exp.training.learner import Learner, Schedule
from awr_exp.training.progress import Bar
from awr_exp.training.run import Run
from awr_exp.training.signals import signals
from awr_exp.training.team import Team

log = logging.getLogger(__name__)


@checked("trainer")
class Trainer:
    """Trains the K members of an agent, each of which writes as a run of its own.

    learner: makes the one of some members; parts: the members that learn together; make_env: makes the environments of
    evaluations, if there are any; runs: one a member; total: steps of the schedule, which all intervals count, too:
    updates of the agent or environment steps; callbacks: what else is done between steps; data: what is learnt from, if
    that is there from the start; evaluates_first: whether the policy is evaluated before it learns; title: of the bar
    on the terminal; best_of: samples of the policy of which evaluations take the best by its Q, or 1 for its mode.
    """

    def __init_subclass__(cls) -> None:
        checked("trainer")(cls)

    def __init__(
        self,
        agent: Agent,
        schedule: Schedule,
        learner: Callable[[slice], Learner],
        parts: Sequence[slice],
        make_env: MakeEnv | None,
        runs: Sequence[Run],
        total: int,
        report_interval: Count,
        eval_interval: Count,
        eval_episodes: Count,
        checkpoint_interval: Count,
        callbacks: Sequence[Callback] = (),
        data: Transitions | None = None,
        evaluates_first: bool = False,
        title: str = "learning",
        best_of: Count = 1,
    ) -> None:
        self.agent, self.runs, self.schedule, self.data = agent, list(runs), schedule, data
        self.total, self.title, self.best_of, self.eval_interval = total, title, best_of, eval_interval
        self.evaluates = Evaluate(eval_interval, eval_episodes, make_env, evaluates_first) if make_env else None
        evaluates = [self.evaluates] if self.evaluates else []
        self.callbacks: list[Callback] = [
            Advise(), Report(report_interval), *evaluates, *callbacks, Checkpoint(checkpoint_interval)
        ]  # fmt: skip
        self.received: list[int] = []
        """Signals that ask for the end."""
        self.step = self.before = self.update = 0
        self.evaluating = 0.0
        """Seconds of evaluation so far, which count as no training."""
        self.resumed = False
        self.policy()
        self.learner, self.learners = learner, [learner(members) for members in parts]

    def policy(self) -> Evaluated:
        """The policy as it is evaluated now."""
        agent = self.agent.averaged()
        return agent if self.best_of == 1 else BestOf(agent, self.best_of, "evaluation", self.step)

    @property
    def unit(self) -> str:
        return self.schedule.unit

    @property
    def places(self) -> list[tuple[Learner, int]]:
        """The learner of each member, and its number there."""
        return [(learner, row) for learner in self.learners for row in range(learner.agent.members)]

    @property
    def going_on(self) -> list[bool]:
        """Whether each member goes on, which it does unless it was given up."""
        return [run.error is None for run in self.runs]

    def stopped(self) -> bool:
        """Whether it is time to stop."""
        return bool(self.received)

    def run(self) -> None:
        """Train to the end; an error of each run then says why it did not get there, if so.

        On SIGTERM or SIGINT, checkpoint and exit with 128 plus the signal's number.
        """
        with ExitStack() as stack:
            self.team = stack.enter_context(Team(self.learners, torch.get_num_threads()))
            stack.enter_context(closing(self))
            for callback in self.callbacks:
                stack.enter_context(closing(callback))
            self.bar = stack.enter_context(Bar(self.title, self.total, self.step))
            self.received = stack.enter_context(signals())
            self.started = (time.perf_counter(), self.update, self.step)
            for callback in self.callbacks:
                callback.begin(self)
            self.call(lambda callback: callback.owed)
            while self.step < self.total and any(self.going_on):
                self.before = self.step
                self.step = self.train(self.next_stop())
                self.call(lambda callback: self.due(callback.interval))
        # All is trained: a signal waits for what there is to write, a second one does not.
        with signals() as self.received:
            for callback in self.callbacks:
                callback.end(self)
            self.leave()

    def call(self, due: Callable[[Callback], bool]) -> None:
        """Call the callbacks that are due, and exit if it is time to stop: everything is saved then."""
        for callback in self.callbacks:
            if due(callback) or (callback.when_stopped and self.stopped()):
                callback.call(self)
        self.leave()

    def train(self, goal: int) -> int:
        """Learn until `step` is `goal`, or a little past it, or `stopped`; the new step."""
        step = self.team.train(goal, self.stopped, self.bar.advance)
        self.update = max(learner.update for learner in self.learners)
        parts = [part for learner in self.learners for part in self.divided(learner)]
        if len(parts) > len(self.learners):
            self.learners = self.team.learners = parts
            return self.train(goal)
        for member, (learner, _) in enumerate(self.places):
            if learner.error is not None:
                self.fail(member, learner.error)
        return step

    def divided(self, part: Learner) -> list[Learner]:
        """A learner, or, if it gave up, its members each by itself from where it was: it may be the fault of one."""
        members = [member for member, (learner, _) in enumerate(self.places) if learner is part]
        if part.error is None or len(members) == 1 or not any(self.going_on[member] for member in members):
            return [part]
        alone: list[Learner] = []
        try:
            for row, member in enumerate(members):
                alone.append(self.learner(slice(member, member + 1)))
                alone[-1].load([part.metadata(row) | {"update": part.update}], part.state(row))
        except (UserError, HangsError):
            for learner in alone:
                learner.close()
            return [part]
        part.close()
        return alone

    def next_stop(self) -> int:
        """The next step at which something is due."""
        intervals = [callback.interval for callback in self.callbacks if callback.interval]
        return min(self.total, *((self.step // interval + 1) * interval for interval in intervals))

    def due(self, interval: int | None) -> bool:
        """Whether a multiple of the interval has been reached since the last stop, or the end."""
        return interval is not None and (self.step // interval > self.before // interval or self.step >= self.total)

    def leave(self) -> None:
        """Exit, if it is time to stop. Everything is saved."""
        if self.received:
            log.info("stopped by signal %d at %s %d", self.received[0], self.unit, self.step)
            raise SystemExit(128 + self.received[0])

    def speeds(self) -> dict[str, float]:
        """Metrics of how fast training has gone since the start."""
        begun, update, step = self.started
        seconds = time.perf_counter() - begun - self.evaluating
        speeds = {"train/updates_per_second": (self.update - update) / seconds}
        if self.schedule.unit != "update":
            speeds["collect/env_steps_per_second"] = (self.step - step) / seconds
        return speeds

    def counts(self, member: int) -> tuple[int, int]:
        """Updates and environment steps of a member: those of all, unless it was given up before."""
        learner, _ = self.places[member]
        return learner.update, learner.step if self.schedule.unit != "update" else 0

    def log(self, member: int, metrics: dict[str, float]) -> None:
        """Hand metrics of a member to its logger, unless it has been given up."""
        run = self.runs[member]
        if run.error is not None:
            return
        run.latest |= metrics
        try:
            with run.speaking():
                assert run.logger is not None
                run.logger.log(self.update, metrics | {"env_steps": self.counts(member)[1]})
        except Exception as error:
            self.fail(member, error)

    def warn(self, member: int, name: str, sentence: str) -> None:
        """Say a sentence once in the member's log, and on the terminal only for the first member that it holds of."""
        run = self.runs[member]
        if name not in run.said:
            level = logging.INFO if any(name in other.said for other in self.runs) else logging.WARNING
            run.said.add(name)
            with run.speaking():
                log.log(level, "warning: %s", sentence)

    def fail(self, member: int, error: Exception) -> None:
        """Give up a member: its last sound state is kept, and the others go on."""
        run = self.runs[member]
        if run.error is None:
            checkpoint.keep(self, member)
            run.error = error
            with run.speaking():
                log.error("error: %s", error)

    def fail_diverged(self) -> None:
        """Give up members that a gradient which was not finite has frozen."""
        rewards = "another dataset.reward_scale" if self.data else "rewards of another scale"
        for member, alive in enumerate(self.agent.alive.tolist()):
            if not alive:
                said = (
                    f"training diverged before update {self.update}: a gradient was not finite; try smaller "
                    f"learning rates, agent.max_grad_norm=1 or {rewards}"
                )
                self.fail(member, UserError(said))

    def resume(self) -> None:
        """Go on from the newest checkpoints of the runs, which must be of the same update and step.

        Raises UserError where one has none, or where the data or the agent is another one.
        """
        checkpoint.resume(self)

    def close(self) -> None:
        """Let go of what only training needs."""
        for learner in self.learners:
            learner.close()
