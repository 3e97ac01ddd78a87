"""What every trainer does beside learning: report, evaluate, checkpoint, warn, and end well."""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.envs.build import MakeEnv
from awr_exp.envs.worker import HangsError
from awr_exp.errors import UserError, first_line
from awr_exp.surroundings import hang_up
from awr_exp.training import checkpoint, health
from awr_exp.training.evaluate import Evaluator
from awr_exp.training.loggers import Logger
from awr_exp.training.progress import SCREEN, Bar, speaking

log = logging.getLogger(__name__)

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What is raised where something of a checkpoint is missing or of another shape."""


class Trainer:
    """Trains the K members of an agent; member k writes to folders[k] and loggers[k] as if it were alone.

    facts[k] goes into the member's checkpoints: what it takes to rebuild the policy. names[k] begins what is said of
    it where there are several. `step` counts to `total`, and so do the intervals: updates of the agent or environment
    steps, whatever a run is made of; `update` counts updates.
    """

    unit = "update"
    """What `step` counts."""
    data: Transitions | None = None
    """What it learns from, if that is there from the start."""
    evaluates_first = False
    """Whether the policy is worth evaluating before it learns here."""

    def __init__(
        self,
        agent: Agent,
        make_env: MakeEnv | None,
        loggers: Sequence[Logger],
        folders: Sequence[Path],
        facts: Sequence[dict[str, Any]],
        total: int,
        report_interval: int,
        eval_interval: int,
        eval_episodes: int,
        checkpoint_interval: int,
        title: str = "training",
        names: Sequence[str] = (),
    ) -> None:
        self.agent, self.loggers, self.folders, self.facts = agent, loggers, folders, facts
        self.total, self.title = total, title
        self.names = list(names) or [""] * agent.members
        self.report_interval, self.eval_interval = report_interval, eval_interval
        self.checkpoint_interval = checkpoint_interval
        self.received: list[int] = []
        """Signals that ask for the end."""
        self.evaluator = (
            Evaluator(make_env, agent.members, eval_episodes, torch.get_num_threads(), self.stopped)
            if make_env
            else None
        )
        self.step = self.before = self.update = 0
        self.best = [-math.inf] * agent.members
        self.latest: list[dict[str, float]] = [{} for _ in range(agent.members)]
        self.returns: list[list[float]] = [[] for _ in range(agent.members)]
        self.failed: list[Exception | None] = [None] * agent.members
        self.lost: list[UserError | None] = [None] * agent.members
        """What could not be kept of those that did not fail."""
        self.said: set[tuple[int, str]] = set()
        self.evaluating = 0.0
        self.owed = self.evaluates_first
        """Whether an evaluation is to be made before anything else."""
        self.resumed = False

    def stopped(self) -> bool:
        """Whether it is time to stop."""
        return bool(self.received)

    def train(self, goal: int, stopped: Callable[[], object], progress: Callable[[int], None]) -> int:
        """Learn until `step` is `goal`, or a little past it, or `stopped`; the new step."""
        raise NotImplementedError

    def read(self) -> list[dict[str, float]]:
        """Each member's mean metrics since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what only training needs."""

    def member_state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint of a member needs beside the agent's state."""
        raise NotImplementedError

    def member_update(self, member: int) -> int:
        """Its updates so far: those of all, unless it was given up before."""
        return self.update

    def member_env_steps(self, member: int) -> int:
        """As `member_update`, of environment steps."""
        return 0

    def member_facts(self, member: int) -> dict[str, Any]:
        """As `member_state`, of numbers and texts."""
        raise NotImplementedError

    def load(self, facts: list[dict[str, Any]], state: dict[str, Tensor]) -> None:
        """Take over every member's facts and all members' states. Raises UserError if they do not fit."""
        raise NotImplementedError

    def count_failures(self, member: int, failures: int) -> None:
        """Keep account of environments that failed in an evaluation."""

    def scores(self, mean: float) -> dict[str, float]:
        """Metrics that follow from an evaluation's mean return."""
        score = self.data.info.normalized_score(mean) if self.data else None
        return {} if score is None else {"eval/normalized_score": score}

    def resume(self) -> None:
        """Go on from the newest checkpoints of the members' folders, which must be of the same update and step.

        Raises UserError where one has none, or where the data or the agent is another one.
        """
        found = [checkpoint.latest(folder) for folder in self.folders]
        if None in found:
            raise UserError(f"{self.folders[found.index(None)]} has no checkpoint to resume from")
        try:
            self._go_on(*zip(*(one for one in found if one is not None), strict=True))
        except MALFORMED as error:
            raise UserError(
                f"the run to resume has a checkpoint that is damaged, or of another version ({first_line(error)}): "
                "start the run anew"
            ) from None
        log.info("going on from %s %d", self.unit, self.step)

    def _go_on(self, states: Sequence[dict[str, Tensor]], facts: Sequence[dict[str, Any]]) -> None:
        """From all members' checkpoints."""
        if self.data and any(fact.get("data") != self.data.info.fingerprint for fact in facts):
            raise UserError(
                f"the run to resume was trained on other data than '{self.data.info.id}' is now: "
                "restore that data set or start a new run"
            )
        state = {name: torch.cat([one[name] for one in states]) for name in states[0]}
        self.load(list(facts), state)
        try:
            self.agent.load_state_dict(state)
        except ValueError as error:
            raise UserError(
                f"the run to resume has another agent or network than this configuration: {error}"
            ) from None
        self.best, self.latest = [fact["best"] for fact in facts], [fact["latest"] for fact in facts]
        self.returns = [fact.get("returns", []) for fact in facts]
        self.owed, self.resumed = any(fact.get("owed", False) for fact in facts), True

    def run(self) -> None:
        """Train to the end; `failed` then has the errors of those members that did not get there.

        On SIGTERM or SIGINT, checkpoint and exit with 128 plus the signal's number.
        """
        for _, sentence in health.at_start(self.value_iters()):
            log.warning("warning: %s", sentence)
        self.started = (time.perf_counter(), self.update, self.step)
        with (
            closing(self),
            closing(self.evaluator) if self.evaluator else nullcontext(),
            Bar(self.title, self.total, self.step) as bar,
            signals() as self.received,
        ):
            if self.owed:
                if self.resumed:
                    log.info("the evaluation at %s %d was not done: trying it again", self.unit, self.step)
                self.evaluate(bar)
            if not self.resumed or self.stopped():
                # From here on a run that is killed can be resumed; before, it begins anew.
                self.save()
            self.leave()
            while self.step < self.total and None in self.failed:
                self.before = self.step
                self.step = self.train(self.next_stop(), self.stopped, bar.advance)
                if self.due(self.report_interval):
                    self.report(bar)
                if self.due(self.eval_interval):
                    self.evaluate(bar)
                if self.stopped() or self.due(self.checkpoint_interval):
                    self.save()
                self.leave()

    def value_iters(self) -> int | None:
        """Steps of the critic on each batch, of an agent that learns values from batches."""
        return getattr(self.agent, "value_iters", None)

    def leave(self) -> None:
        """Exit, if it is time to stop. Everything is saved."""
        if self.received:
            log.info("stopped by signal %d at %s %d", self.received[0], self.unit, self.step)
            raise SystemExit(128 + self.received[0])

    def next_stop(self) -> int:
        """The next step at which something is due."""
        intervals = (self.report_interval, self.eval_interval, self.checkpoint_interval)
        return min(self.total, *((self.step // interval + 1) * interval for interval in intervals))

    def due(self, interval: int) -> bool:
        return self.step // interval > self.before // interval or self.step >= self.total

    def report(self, bar: Bar) -> None:
        """Read the metrics off the device, the only time between evaluations, and log their means."""
        speeds, ills = self.speeds(time.perf_counter() - self.started[0]), ""
        for member, metrics in enumerate(self.read()):
            named = {name if "/" in name else f"train/{name}": value for name, value in metrics.items()}
            complaints = dict(self.complaints(member, metrics))
            if "rewards" in complaints:
                # A report on the run, which does not see its data, gives no advice on beta either.
                named["train/equal_rewards"] = 1.0
            self.log(member, named | speeds)
            for name, sentence in complaints.items():
                self.warn(member, name, sentence)
            if member == 0:
                ills = "".join(f" ({name})" for name in complaints)
        self.fail_diverged()
        if "train/ess" in (first := self.latest[0]):
            bar.tell(health=f"ess {first['train/ess']:.2f} w {first['train/mean_weight']:.2f}{ills}")

    def speeds(self, seconds: float) -> dict[str, float]:
        """Metrics of how fast it went in all the seconds since the start, which evaluation is not part of."""
        return {"train/updates_per_second": (self.update - self.started[1]) / seconds}

    def fail_diverged(self) -> None:
        rewards = "another dataset.reward_scale" if self.data else "rewards of another scale"
        for member, alive in enumerate(self.agent.alive.tolist()):
            if not alive:
                self.fail(
                    member,
                    UserError(
                        f"training diverged before update {self.update}: a gradient was not finite; try smaller "
                        f"learning rates, agent.max_grad_norm=1 or {rewards}"
                    ),
                )

    def fail(self, member: int, error: Exception) -> None:
        """Give up a member: its last sound state is kept, and the others go on."""
        if self.failed[member] is None:
            self.save_member(member)
            self.failed[member] = error
            with speaking(self.folders[member], self.names[member]):
                log.error("error: %s", error)

    def of_rewards(self, member: int) -> Iterator[tuple[str, str]]:
        """See `health.of_rewards`, of what a member learns from."""
        yield from ()

    def complaints(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        beta = getattr(self.agent, "beta", None)
        if beta is None:
            return
        if constant := next(self.of_rewards(member), None):
            # Advantages are the critic's errors alone, and no beta makes sense of them.
            yield constant
            return
        # The first report of a run is that of a raw critic, whose errors are no advantages.
        raw = self.step <= self.report_interval < self.total
        if not raw:
            standardized = bool(self.agent.standardize[member])  # type: ignore[attr-defined]
            yield from health.of_metrics(
                metrics,
                float(beta[member]) if self.agent.beta_matters else None,
                float(self.agent.max_weight[member]),  # type: ignore[attr-defined]
                standardized,
            )

    def warn(self, member: int, name: str, sentence: str) -> None:
        """Say it once in the member's log, and on the terminal only for the first member that it holds of."""
        if (member, name) not in self.said:
            level = logging.INFO if any(said == name for _, said in self.said) else logging.WARNING
            self.said.add((member, name))
            with speaking(self.folders[member], self.names[member]):
                log.log(level, "warning: %s", sentence)

    def evaluate(self, bar: Bar) -> None:
        # Nobody plays with actions that are not numbers.
        self.fail_diverged()
        if self.evaluator is None or None not in self.failed:
            return
        begun = time.perf_counter()
        self.owed = True
        try:
            played = self.evaluator.play(self.agent.averaged(), [error is None for error in self.failed])
        except HangsError as hangs:
            log.warning("%s", hangs)
            return
        for member, reasons in enumerate(played.failures):
            if reasons:
                self.count_failures(member, len(reasons))
                with speaking(self.folders[member], self.names[member]):
                    said = "an environment failed and was made anew, %d times in this evaluation, the last time so: %s"
                    log.warning(said, len(reasons), reasons[-1])
        for member, error in played.errors.items():
            self.fail(member, error)
        # Of those that were given up it still is, by their checkpoints.
        self.owed = False
        if None not in self.failed:
            return
        for member, (returns, lengths) in enumerate(zip(played.returns, played.lengths, strict=True)):
            metrics = {
                "eval/return_mean": float(returns.mean()),
                "eval/return_std": float(returns.std()),
                "eval/return_min": float(returns.min()),
                "eval/return_max": float(returns.max()),
                "eval/length_mean": float(lengths.mean()),
            }
            metrics |= self.scores(metrics["eval/return_mean"])
            self.log(member, metrics)
            if self.failed[member] is None:
                self.returns[member] = returns.tolist()
                with speaking(self.folders[member], self.names[member]):
                    log.info("%s %d: evaluation return %.1f", self.unit, self.step, metrics["eval/return_mean"])
                if metrics["eval/return_mean"] > self.best[member]:
                    self.best[member] = metrics["eval/return_mean"]
                    self.save_member(member, best=True)
        mean = played.returns.mean(1)
        best = int(np.nanargmax(mean))
        bar.tell(evaluation=f"return {mean[best]:.1f}")
        if self.agent.members > 1:
            log.log(SCREEN, "%s %d: best return %.1f, %s", self.unit, self.step, mean[best], self.names[best])
        # Evaluation does not count as training time.
        seconds = time.perf_counter() - begun
        self.started = (self.started[0] + seconds, *self.started[1:])
        self.evaluating += seconds

    def log(self, member: int, metrics: dict[str, float]) -> None:
        if self.failed[member] is not None:
            return
        self.latest[member] |= metrics
        try:
            with speaking(self.folders[member], self.names[member]):
                self.loggers[member].log(self.update, metrics | {"env_steps": self.member_env_steps(member)})
        except Exception as error:
            self.fail(member, error)

    def save(self) -> None:
        for member in range(self.agent.members):
            self.save_member(member)

    def save_member(self, member: int, best: bool = False) -> None:
        # From before a member diverged, it can go on with other settings; from then on it is frozen.
        if self.failed[member] is not None or not self.agent.alive[member]:
            return
        rows = {name: tensor[member : member + 1] for name, tensor in self.agent.state_dict().items()}
        if not best:
            rows |= self.member_state(member)
        facts = self.facts[member] | self.member_facts(member)
        facts |= {
            "best": self.best[member],
            "latest": self.latest[member],
            "returns": self.returns[member],
            "owed": self.owed,
        }
        if self.data:
            facts["data"] = self.data.info.fingerprint
        with speaking(self.folders[member], self.names[member]):
            kept = checkpoint.save(self.folders[member], self.member_update(member), rows, facts, best)
        if not best:
            lost = (
                "the newest checkpoint could not be written: make room, then resume, which learns again what was lost"
            )
            self.lost[member] = None if kept else UserError(lost)


class _Killed(BaseException):
    """By a second signal. As a SystemExit it would pass for a failure of the environment that it hits."""


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGTERM, SIGINT and SIGHUP instead of dying of them, in the main thread; a second one kills.

    Where somebody waits for SIGUSR2, a scheduler's notice before it takes the machine away, that one instead of
    SIGTERM, which may follow while the job is queued again.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise _Killed(number)
        received.append(number)

    try:
        notice = signal.SIGUSR2 if callable(signal.getsignal(signal.SIGUSR2)) else signal.SIGTERM
        before = {number: signal.signal(number, receive) for number in (notice, signal.SIGINT, *hang_up())}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield received
    except _Killed as killed:
        raise SystemExit(128 + killed.args[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
