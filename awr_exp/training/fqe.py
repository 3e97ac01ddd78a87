"""What policies are worth by the data set alone, for whoever has no environment to evaluate them in."""

import logging
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from awr_exp.data.selection import in_unit
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.math.optimizers import Optimizer, adam
from awr_exp.networks.mlp import MakeNetwork
from awr_exp.ranges import BelowOne, Count, Positive, Unit, checked
from awr_exp.seeding import child_seed, generator
from awr_exp.training import memory
from awr_exp.training.accelerate import Update, accelerate
from awr_exp.training.callbacks import Callback
from awr_exp.training.fitted_q import Estimate, FittedQ
from awr_exp.training.learner import Learner
from awr_exp.training.means import Means
from awr_exp.training.progress import Bar
from awr_exp.training.schedules import FixedData
from awr_exp.training.team import Team, by_cache
from awr_exp.types import OWN_UNIT

if TYPE_CHECKING:
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)

GAMMA = 0.99
"""The discount where neither the setting nor the agent has one."""
RESAMPLES = 2_000
EDGES = (0.025, 0.975)
"""Of an interval, which has the middle 95 % of all samples."""
MOVES = 0.1
"""Share of the spread of the data's discounted returns by which an estimate hardly moves once it has converged."""


@checked("evaluate")
class FQE(Callback):
    """Estimates the discounted return of every policy by fitted Q evaluation, once all is trained.

    It is of the policy that is evaluated, see `Trainer.policy`, from the first states of the data's episodes. network:
    of Q; updates: steps of its regression, on batches of batch_size; gamma: the discount, None: the agent's, or GAMMA
    where that has none; lr, target_rate: see `FittedQ`. A run that is stopped meanwhile does it again once it is
    resumed.
    """

    def __init__(
        self,
        network: MakeNetwork,
        updates: Count = 5_000,
        batch_size: Count = 256,
        gamma: BelowOne | None = None,
        lr: Positive = 3e-4,
        target_rate: Unit = 0.05,
        optimizer: Optimizer = adam,
        compile: Literal["auto", True, False] = "auto",
    ) -> None:
        self.network, self.updates, self.batch_size, self.gamma = network, updates, batch_size, gamma
        self.lr, self.target_rate, self.optimizer, self.compile = lr, target_rate, optimizer, compile

    def begin(self, trainer: "Trainer") -> None:
        if trainer.data is None:
            raise UserError("evaluate=fqe needs a data set: leave it out, or choose dataset=...")
        if max(self.gammas(trainer)) == 1:
            raise UserError("evaluate=fqe needs a discount below 1: give evaluate.gamma, such as 0.99")
        if trainer.agent.spec.chunk > 1:
            self.check_chunks(trainer)
        members, width = trainer.agent.members, trainer.agent.spec.action_dim
        memory.check_actions(members, len(trainer.data), width, trainer.agent.device)

    def check_chunks(self, trainer: "Trainer") -> None:
        """Raises UserError where the rewards of chunks are not sums of the rewards that are to be estimated."""
        assert trainer.data is not None
        if self.gammas(trainer) != self.own_gammas(trainer):
            raise UserError(
                "evaluate.gamma is another discount than the agent's, by which dataset.action_chunk sums rewards: "
                "leave it out"
            )
        if trainer.data.info.reward_unit.shift:
            raise UserError(
                "evaluate=fqe cannot take dataset.reward_shift out of the sums of rewards that dataset.action_chunk "
                "makes: leave one of them out"
            )

    def own_gammas(self, trainer: "Trainer") -> list[float]:
        """The discount of each member; a baseline has that of the agent that it is compared with."""
        return [run.config.get("agent", {}).get("gamma", GAMMA) for run in trainer.runs]

    def gammas(self, trainer: "Trainer") -> list[float]:
        """The discount of each member's estimate."""
        own = self.own_gammas(trainer)
        return own if self.gamma is None else [self.gamma] * len(own)

    def end(self, trainer: "Trainer") -> None:
        if not any(trainer.going_on):
            return
        assert trainer.data is not None
        begun, agent, data = time.perf_counter(), trainer.agent, in_unit(trainer.data, OWN_UNIT)
        policies = "a policy" if agent.members == 1 else f"{agent.members} policies"
        log.info("fitted Q evaluation of %s: %d updates", policies, self.updates)
        fitted = FittedQ(
            agent.spec,
            self.network,
            # Rows of their own: those of training would be drawn again.
            [child_seed(seed, "fqe") for seed in agent.seeds],
            self.gammas(trainer),
            self.lr,
            self.target_rate,
            self.optimizer,
            agent.device,
            agent.dtype,
        )
        fitted.normalizer.fit(*data.obs_statistics())
        fitted.begin(data, trainer.policy())
        found = list(self.estimates(fitted, data, trainer))
        trainer.evaluating += time.perf_counter() - begun
        if len(found) == 2:
            self.report(trainer, fitted, *found)

    def estimates(self, fitted: FittedQ, data: Transitions, trainer: "Trainer") -> Iterator[Estimate]:
        """What is estimated after half of the updates and after all of them, unless the trainer is stopped."""
        total = self.updates * fitted.members
        update = accelerate(FittedQ.update, self.compile, total, fitted.device)
        functions: Any = {"batch": lambda part, data: partial(_each, update(part), part, data)}
        threads = torch.get_num_threads()
        parts: Any = [fitted.shard(members) for members in by_cache(fitted, threads)]
        schedule = FixedData(refresh_interval=self.updates)
        learners = [Learner(part, data, schedule, functions, self.batch_size) for part in parts]
        with Team(learners, threads) as team, Bar("evaluation", self.updates) as bar:
            for goal in (self.updates // 2, self.updates):
                team.train(goal, trainer.stopped, bar.advance)
                if trainer.stopped():
                    return
                yield fitted.estimate(data)

    def report(self, trainer: "Trainer", fitted: FittedQ, before: Estimate, after: Estimate) -> None:
        """Log each member's estimate, and say where it has not converged."""
        mean = after.value.mean(-1)
        low, high = bootstrap(after.value)
        columns = {
            "fqe/return_mean": mean,
            "fqe/return_low": low,
            "fqe/return_high": high,
            "fqe/data_return": after.recorded.mean(-1),
            "fqe/bellman_error": after.error,
            "fqe/drift": mean - before.value.mean(-1),
        }
        alive, spread = fitted.alive.tolist(), fitted.unit.squeeze(1).tolist()
        for member, gamma in enumerate(self.gammas(trainer)):
            metrics = {name: column.tolist()[member] for name, column in columns.items()} | {"fqe/gamma": gamma}
            if not alive[member]:
                trainer.warn(member, "fqe", "the estimate diverged, and there is none: try a smaller evaluate.lr")
                continue
            trainer.log(member, metrics)
            with trainer.runs[member].speaking():
                said = "estimated return %.1f (95%% interval %.1f to %.1f), discounted by %g"
                log.info(said, *(metrics[f"fqe/return_{name}"] for name in ("mean", "low", "high")), gamma)
            if abs(metrics["fqe/drift"]) > MOVES * spread[member]:
                moved = f"moved by {metrics['fqe/drift']:.3g} in the second half of its updates"
                trainer.warn(member, "fqe", f"the estimated return {moved}: give more evaluate.updates")


def _each(update: Update, fitted: FittedQ, data: Transitions, means: Means, rows: Tensor, noise: Tensor) -> None:
    """Update on each batch of rows [S, K, B]."""
    for own in rows:
        means.add(update(fitted.sample(data, own)))


def bootstrap(value: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of an interval of the mean of values [K, E], by drawing episodes with replacement: [K] both."""
    episodes = value.shape[1]
    drawn = generator(0, "bootstrap")

    def mean() -> Tensor:
        rows = torch.randint(episodes, (episodes,), generator=drawn).to(value.device)
        return value @ torch.bincount(rows, minlength=episodes).to(value) / episodes

    edges = torch.tensor(EDGES, dtype=value.dtype, device=value.device)
    low, high = torch.stack([mean() for _ in range(RESAMPLES)]).quantile(edges, 0)
    return low, high
