"""Training on a fixed data set: sample, update, and now and then report, evaluate and checkpoint."""

import logging
import math
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.envs.make import MakeEnv
from awr_exp.errors import UserError
from awr_exp.seeding import generator
from awr_exp.training import checkpoint, health
from awr_exp.training.accelerate import accelerate
from awr_exp.training.evaluate import Evaluator
from awr_exp.training.loggers import Logger
from awr_exp.training.progress import Bar
from awr_exp.types import Metrics

log = logging.getLogger(__name__)

ROW_BLOCK = 64
"""Updates whose rows are drawn at once. Block b of a member depends on its seed and b alone: nothing to save."""


class Offline:
    """Trains the K members of an agent; member k writes to folders[k] and loggers[k] as if it were alone.

    facts[k] goes into the member's checkpoints: what it takes to rebuild the policy. Intervals count updates.
    """

    def __init__(
        self,
        agent: Agent,
        data: Transitions,
        make_env: MakeEnv | None,
        loggers: Sequence[Logger],
        folders: Sequence[Path],
        facts: Sequence[dict[str, Any]],
        updates: int,
        batch_size: int,
        refresh_interval: int,
        report_interval: int,
        eval_interval: int,
        eval_episodes: int,
        checkpoint_interval: int,
        compile: str | bool,
        title: str = "training",
    ) -> None:
        self.agent, self.data, self.loggers, self.folders, self.facts = agent, data, loggers, folders, facts
        self.updates, self.batch_size, self.title = updates, batch_size, title
        self.refresh_interval, self.report_interval = refresh_interval, report_interval
        self.eval_interval, self.checkpoint_interval = eval_interval, checkpoint_interval
        self.evaluator = Evaluator(make_env, agent.members, eval_episodes) if make_env else None
        self.step = accelerate(agent.update, compile, updates, agent.device)
        self.update = 0
        self.target: Tensor | None = None
        self.rows: Tensor | None = None
        self.sums: Metrics = {}
        self.summed = 0
        self.best = [-math.inf] * agent.members
        self.latest: list[dict[str, float]] = [{} for _ in range(agent.members)]
        self.said: set[tuple[int, str]] = set()
        self.started = (time.perf_counter(), 0)

    def resume(self) -> None:
        """Go on from the newest checkpoints of the members' folders.

        Raises UserError where one has none, or where the data or the agent is another one.
        """
        found = [checkpoint.latest(folder) for folder in self.folders]
        if None in found:
            raise UserError(f"{self.folders[found.index(None)]} has no checkpoint to resume from")
        states, facts = zip(*(one for one in found if one is not None), strict=True)
        for fact in facts:
            if fact["data"] != self.data.info.fingerprint:
                raise UserError(
                    f"the run to resume was trained on other data than '{self.data.info.id}' is now: "
                    "restore that data set or start a new run"
                )
        state = {name: torch.cat([one[name] for one in states]) for name in states[0]}
        try:
            self.agent.load_state_dict(state)
        except ValueError as error:
            raise UserError(
                f"the run to resume has another agent or network than this configuration: {error}"
            ) from None
        device = self.agent.device
        self.update, self.summed = facts[0]["update"], facts[0]["summed"]
        self.best, self.latest = [fact["best"] for fact in facts], [fact["latest"] for fact in facts]
        self.target = state["target"].to(device) if "target" in state else None
        self.sums = {name[5:]: tensor.to(device) for name, tensor in state.items() if name.startswith("sums.")}

    def run(self) -> list[dict[str, float]]:
        """Train to the end and return each member's latest metrics.

        On SIGTERM or SIGINT, checkpoint and exit with 128 plus the signal's number. Raises UserError if all
        members diverged.
        """
        for name, sentence in health.at_start(getattr(self.agent, "value_iters", None)):
            self.warn(0, name, sentence)
        self.started = (time.perf_counter(), self.update)
        if self.update == 0:
            # From here on a run that is killed can be resumed.
            self.save()
        with Bar(self.title, self.updates, self.update) as bar, _signals() as received:
            while self.update < self.updates:
                self.train_once()
                bar.advance(self.update)
                if self.due(self.report_interval):
                    self.report(bar)
                if self.due(self.eval_interval):
                    self.evaluate(bar)
                if received or self.due(self.checkpoint_interval):
                    self.save()
                if received:
                    log.info("stopped by signal %d at update %d", received[0], self.update)
                    raise SystemExit(128 + received[0])
        if self.evaluator:
            self.evaluator.close()
        return self.latest

    def due(self, interval: int) -> bool:
        return self.update % interval == 0 or self.update == self.updates

    def train_once(self) -> None:
        if self.update % self.refresh_interval == 0:
            self.target = self.agent.refresh(self.data)
        if self.rows is None or self.update % ROW_BLOCK == 0:
            self.rows = self.draw_rows(self.update // ROW_BLOCK)
        metrics = self.step(self.data.sample(self.rows[self.update % ROW_BLOCK], self.target))
        if self.sums:
            for name, value in metrics.items():
                self.sums[name] += value
        else:
            self.sums = {name: value.clone() for name, value in metrics.items()}
        self.summed += 1
        self.update += 1

    def draw_rows(self, block: int) -> Tensor:
        """[ROW_BLOCK, K, B] rows of the data, with replacement."""
        shape, device = (ROW_BLOCK, self.batch_size), self.agent.device
        return torch.stack(
            [
                torch.randint(
                    len(self.data),
                    shape,
                    generator=generator(seed, "rows", block, device=device),
                    device=device,
                )
                for seed in self.agent.seeds
            ],
            1,
        )

    def report(self, bar: Bar) -> None:
        """Read the metrics off the device, the only time between evaluations, and log their means."""
        names = sorted(self.sums)
        table = (torch.stack([self.sums[name] for name in names], 1) / self.summed).tolist()
        alive = self.agent.alive.tolist()
        seconds, since = time.perf_counter() - self.started[0], self.started[1]
        speed = (self.update - since) / seconds
        self.sums, self.summed = {}, 0
        for member, values in enumerate(table):
            metrics = dict(zip(names, values, strict=True))
            self.log(member, {f"train/{k}": v for k, v in metrics.items()} | {"train/updates_per_second": speed})
            for name, sentence in self.complaints(member, metrics):
                self.warn(member, name, sentence)
            if not alive[member]:
                self.warn(
                    member,
                    "diverged",
                    f"diverged before update {self.update}: a gradient was not finite and the parameters are kept as "
                    "they were; try smaller learning rates or agent.max_grad_norm=1",
                )
        if not any(alive):
            self.save()
            raise UserError(
                f"training diverged before update {self.update}: a gradient was not finite; try smaller learning "
                "rates, agent.max_grad_norm=1 or another dataset.reward_scale"
            )
        if "train/ess" in self.latest[0]:
            bar.tell(
                health=" ".join(f"ess {m['train/ess']:.2f} w {m['train/mean_weight']:.2f}" for m in self.latest[:1])
            )

    def complaints(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        beta = getattr(self.agent, "beta", None)
        # The first report of a run is that of a raw critic, whose errors are no advantages.
        raw = self.update <= self.report_interval < self.updates
        if beta is not None and not raw:
            standardized = bool(self.agent.standardize[member])  # type: ignore[attr-defined]
            yield from health.of_metrics(metrics, float(beta[member]), standardized)

    def warn(self, member: int, name: str, sentence: str) -> None:
        if (member, name) not in self.said:
            self.said.add((member, name))
            prefix = f"member {member}: " if self.agent.members > 1 else ""
            log.warning("warning: %s%s", prefix, sentence)

    def evaluate(self, bar: Bar) -> None:
        if self.evaluator is None:
            return
        begun = time.perf_counter()
        played = self.evaluator.play(self.agent)
        for member, (returns, lengths) in enumerate(zip(played.returns, played.lengths, strict=True)):
            metrics = {
                "eval/return_mean": float(returns.mean()),
                "eval/return_std": float(returns.std()),
                "eval/return_min": float(returns.min()),
                "eval/return_max": float(returns.max()),
                "eval/length_mean": float(lengths.mean()),
            }
            score = self.data.info.normalized_score(metrics["eval/return_mean"])
            if score is not None:
                metrics["eval/normalized_score"] = score
            self.log(member, metrics)
            if metrics["eval/return_mean"] > self.best[member]:
                self.best[member] = metrics["eval/return_mean"]
                self.save_member(member, best=True)
        mean = float(played.returns.mean())
        bar.tell(evaluation=f"return {mean:.1f}")
        log.info("update %d: evaluation return %.1f", self.update, mean)
        # Evaluation does not count as training time.
        self.started = (self.started[0] + time.perf_counter() - begun, self.started[1])

    def log(self, member: int, metrics: dict[str, float]) -> None:
        self.latest[member] |= metrics
        self.loggers[member].log(self.update, metrics)

    def save(self) -> None:
        for member in range(self.agent.members):
            self.save_member(member)

    def save_member(self, member: int, best: bool = False) -> None:
        state = dict(self.agent.state_dict())
        if not best:
            state |= {f"sums.{name}": value for name, value in self.sums.items()}
            if self.target is not None:
                state["target"] = self.target
        facts = self.facts[member] | {
            "data": self.data.info.fingerprint,
            "summed": self.summed,
            "best": self.best[member],
            "latest": self.latest[member],
        }
        rows = {name: tensor[member : member + 1] for name, tensor in state.items()}
        checkpoint.save(self.folders[member], self.update, rows, facts, best)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT instead of dying of them, where this is the main thread; a second one kills."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise SystemExit(128 + number)
        received.append(number)

    try:
        before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
