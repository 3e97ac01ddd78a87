"""What a trainer does between the steps of learning.

One's own callback is a class like these, which a yaml file of conf/callback names.
"""

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from awr_exp.envs.build import MakeEnv
from awr_exp.envs.worker import HangsError
from awr_exp.training import checkpoint
from awr_exp.training.evaluate import Episodes, Evaluator
from awr_exp.training.progress import SCREEN

if TYPE_CHECKING:
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)

LAST = 3
"""Evaluations of which `eval/return_recent` is the mean: a single one depends on where the policy stands just then."""
MANY = 100_000
"""Actions of the data that are looked at: the first so many say what the others do."""


class Callback:
    """Called when training begins, at each multiple of `interval` steps and at the last one, and when all is trained.

    interval: steps between calls; None: there are none; owed: it is called before the first step, too, once all have
    begun; when_stopped: before a run exits on a signal, too.
    What it has to remember goes into the members' checkpoints as `metadata`, and comes back with `load`.
    """

    interval: int | None = None
    owed = False
    when_stopped = False

    def begin(self, trainer: "Trainer") -> None:
        """Is called before the first step, also of a run that is resumed."""

    def call(self, trainer: "Trainer") -> None:
        """Is called at each multiple of the interval."""

    def end(self, trainer: "Trainer") -> None:
        """Is called after the last step."""

    def metadata(self, member: int) -> dict[str, Any]:
        """What a member's checkpoint keeps of it, as JSON."""
        return {}

    def load(self, metadata: Sequence[dict[str, Any]]) -> None:
        """Go on from the metadata of all members' checkpoints."""

    def close(self) -> None:
        """Let go of what only training needs."""


class Advise(Callback):
    """Warns at the start of what the settings, and the actions of the data, say already."""

    def begin(self, trainer: "Trainer") -> None:
        if trainer.schedule.updates_batches and trainer.agent.lags:
            log.warning(
                "warning: value_iters=1: the critic takes one step a batch and lags behind the policy; "
                "try agent.value_iters=5"
            )
        if trainer.data and trainer.agent.imitates:
            for sentence in trainer.agent.policy.head.about_data(trainer.data.actions(MANY).to(trainer.agent.device)):
                log.warning("warning: %s", sentence)


class Report(Callback):
    """Reads the metrics off the device, logs their means, and warns of what they say is wrong."""

    def __init__(self, interval: int) -> None:
        self.interval: int = interval

    def call(self, trainer: "Trainer") -> None:
        speeds, ills = trainer.speeds(), ""
        read = [metrics for learner in trainer.learners for metrics in learner.read()]
        for member, metrics in enumerate(read):
            named = {name if "/" in name else f"train/{name}": value for name, value in metrics.items()}
            warnings = self._warnings(trainer, member, metrics)
            if "rewards" in warnings:
                # A report on the run, which does not see its data, gives no advice on beta either.
                named["train/equal_rewards"] = 1.0
            trainer.log(member, named | speeds)
            for name, sentence in warnings.items():
                trainer.warn(member, name, sentence)
            if member == 0:
                ills = "".join(f" ({name})" for name in warnings)
        trainer.fail_diverged()
        if "train/ess" in (first := trainer.runs[0].latest):
            trainer.bar.tell(health=f"ess {first['train/ess']:.2f} w {first['train/mean_weight']:.2f}{ills}")

    def _warnings(self, trainer: "Trainer", member: int, metrics: dict[str, float]) -> dict[str, str]:
        """Sentences by name, of what a member's metrics and experience say is wrong."""
        agent, (learner, row) = trainer.agent, trainer.places[member]
        found: dict[str, str] = {}
        # The first report of a run is that of a raw critic, whose errors are no advantages.
        raw = trainer.step <= self.interval < trainer.total
        if agent.value_iters and (constant := learner.about_rewards(row)):
            # Advantages are the critic's errors alone, and no beta makes sense of them.
            found["rewards"] = constant
        elif not raw:
            found = dict(agent.warnings(member, metrics))
        if coarse := learner.about_observations(row):
            found["coarse"] = coarse
        return found


class Evaluate(Callback):
    """Plays whole episodes with each member's policy, and keeps the best policy.

    episodes: of each member, in environments of make_env; first: evaluate before anything is learnt, too.
    """

    def __init__(self, interval: int, episodes: int, make_env: MakeEnv, first: bool = False) -> None:
        self.interval, self.episodes, self.make_env = interval, episodes, make_env
        self.owed = first
        self.evaluator: Evaluator | None = None
        self.means: list[deque[float]] = []
        """The mean returns of each member's last evaluations."""

    def begin(self, trainer: "Trainer") -> None:
        members, threads = trainer.agent.members, torch.get_num_threads()
        self.evaluator = self.evaluator or Evaluator(self.make_env, members, self.episodes, threads, trainer.stopped)
        self.means = self.means or [deque(maxlen=LAST) for _ in range(members)]
        if self.owed and trainer.resumed:
            log.info("the evaluation at %s %d was not done: trying it again", trainer.unit, trainer.step)

    def call(self, trainer: "Trainer") -> None:
        # Nobody plays with actions that are not numbers.
        trainer.fail_diverged()
        if not any(trainer.going_on):
            return
        assert self.evaluator is not None
        begun, self.owed = time.perf_counter(), True
        try:
            with trainer.bar.doing("evaluating"):
                played = self.evaluator.play(trainer.policy(), trainer.going_on)
        except HangsError as hangs:
            log.warning("%s", hangs)
            return
        self._count_failures(trainer, played)
        # Checkpoints of members that are given up say that their evaluation is still owed.
        for member, error in played.errors.items():
            trainer.fail(member, error)
        self.owed = False
        if any(trainer.going_on):
            self._report(trainer, played)
            trainer.evaluating += time.perf_counter() - begun

    def _count_failures(self, trainer: "Trainer", played: Episodes) -> None:
        for member, reasons in enumerate(played.failures):
            if reasons:
                learner, row = trainer.places[member]
                learner.count_failures(row, len(reasons))
                with trainer.runs[member].speaking():
                    said = "an environment failed and was made anew, %d times in this evaluation, the last time so: %s"
                    log.warning(said, len(reasons), reasons[-1])

    def _report(self, trainer: "Trainer", played: Episodes) -> None:
        for member, (returns, lengths) in enumerate(zip(played.returns, played.lengths, strict=True)):
            run, mean = trainer.runs[member], float(returns.mean())
            self.means[member].append(mean)
            metrics = {
                "eval/return_mean": mean,
                "eval/return_recent": float(np.mean(self.means[member])),
                "eval/return_std": float(returns.std()),
                "eval/return_min": float(returns.min()),
                "eval/return_max": float(returns.max()),
                "eval/length_mean": float(lengths.mean()),
            }
            score = trainer.data.info.normalized_score(mean) if trainer.data else None
            trainer.log(member, metrics if score is None else metrics | {"eval/normalized_score": score})
            if run.error is None:
                run.returns = returns.tolist()
                with run.speaking():
                    log.info("%s %d: evaluation return %.1f", trainer.unit, trainer.step, mean)
                if mean > run.best:
                    run.best = mean
                    checkpoint.keep(trainer, member, best=True)
        means = played.returns.mean(1)
        best = int(np.nanargmax(means))
        trainer.bar.tell(evaluation=f"return {means[best]:.1f}")
        if trainer.agent.members > 1:
            name = trainer.runs[best].name
            log.log(SCREEN, "%s %d: best return %.1f, %s", trainer.unit, trainer.step, means[best], name)

    def metadata(self, member: int) -> dict[str, Any]:
        return {"owed": self.owed, "means": list(self.means[member]) if self.means else []}

    def load(self, metadata: Sequence[dict[str, Any]]) -> None:
        self.owed = any(fact.get("owed", False) for fact in metadata)
        self.means = [deque(fact.get("means", []), maxlen=LAST) for fact in metadata]

    def close(self) -> None:
        if self.evaluator:
            self.evaluator.close()


class Checkpoint(Callback):
    """Writes a checkpoint of every member. It comes last, and so has what the others did."""

    when_stopped = True

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def begin(self, trainer: "Trainer") -> None:
        # From here on a run that is killed can be resumed; before, it begins anew.
        self.owed = not trainer.resumed

    def call(self, trainer: "Trainer") -> None:
        for member in range(trainer.agent.members):
            checkpoint.keep(trainer, member)
