"""Judging policies by episodes that are held out, for whoever has no environment to judge them in."""

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.transitions import Transitions
from awr_exp.ranges import InsideUnit, Whole, checked
from awr_exp.seeding import generator, some
from awr_exp.training import checkpoint
from awr_exp.training.callbacks import Callback
from awr_exp.types import Batch, Metrics

if TYPE_CHECKING:
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)

MOST, SOME = 2**17, 2**15
"""Held-out steps of which all are judged, and how many of more are: they are drawn once."""
ROWS = 1_024
"""Held-out steps that are judged at once, however many members there are."""


@checked("holdout")
class HeldOut(Callback):
    """Judges each member by episodes that nothing is trained on, at each evaluation, and keeps the best policy.

    share, seed: of the episodes that are held out, see `awr_exp.data.holdout.split`; best: what is smallest for the
    best policy, see `judge`, where a head without a likelihood has its loss instead; always: whether episodes are held
    out where there is an environment, too, whose returns then decide which policy is the best; data: those episodes.
    """

    def __init__(
        self,
        share: InsideUnit = 0.1,
        seed: Whole = 0,
        best: Literal["weighted_nll", "nll", "value_error"] = "weighted_nll",
        always: bool = True,
        data: Transitions | None = None,
    ) -> None:
        self.share, self.seed, self.best, self.always, self.data = share, seed, best, always, data
        self.lowest: list[float] = []
        """Each member's smallest `best` so far."""

    def begin(self, trainer: "Trainer") -> None:
        self.interval = trainer.eval_interval
        self.lowest = self.lowest or [math.inf] * trainer.agent.members

    def call(self, trainer: "Trainer") -> None:
        trainer.fail_diverged()
        if not any(trainer.going_on):
            return
        assert self.data is not None
        begun = time.perf_counter()
        found = {
            name: values.tolist() for name, values in judge(trainer.agent.averaged(), self.data, self.seed).items()
        }
        for member in range(trainer.agent.members):
            self._report(trainer, member, {name: values[member] for name, values in found.items()})
        trainer.evaluating += time.perf_counter() - begun

    def _report(self, trainer: "Trainer", member: int, found: dict[str, float]) -> None:
        known = {name: value for name, value in found.items() if math.isfinite(value)}
        trainer.log(member, {f"heldout/{name}": value for name, value in known.items()})
        run, said = trainer.runs[member], ", ".join(f"{name} {value:.4g}" for name, value in known.items())
        if run.error is not None:
            return
        with run.speaking():
            log.info("%s %d: held out, %s", trainer.unit, trainer.step, said)
        if member == 0:
            trainer.bar.tell(evaluation=f"held out, {said}")
        # Who climbs a Q leaves the data's actions on purpose.
        if trainer.evaluates is None and trainer.agent.imitates:
            name = self.best if trainer.agent.policy.head.known_density else self.best.replace("nll", "loss")
            if name not in found:
                why = f"holdout.best={self.best} is nothing that this agent has: the last policy counts as the best"
                trainer.warn(member, "holdout", why)
            elif known.get(name, math.inf) < self.lowest[member]:
                self.lowest[member] = known[name]
                checkpoint.keep(trainer, member, best=True)

    def metadata(self, member: int) -> dict[str, Any]:
        return {"heldout": self.lowest[member]} if self.lowest else {}

    def load(self, metadata: Sequence[dict[str, Any]]) -> None:
        self.lowest = [fact.get("heldout", math.inf) for fact in metadata]


@torch.no_grad()
def judge(agent: Agent, data: Transitions, seed: int) -> Metrics:
    """What members make of data that they have not learnt from, [K] each, all smaller where better.

    nll: the mean of -log pi(a|s), in nats, or under the name `loss` that of a head without a likelihood; weighted_nll,
    weighted_loss: the same by the weights that the agent gives these actions, which are divided by their mean;
    value_error: the variance of the critic's error in variances of its target, where there is a critic. seed: of what
    agents and heads sample, the same numbers each time. The agent stays as it is.
    """
    # Some weightings learn from what they weigh, and a critic takes a step to say its error.
    agent = copy.deepcopy(agent)
    targets = (agent.targets(data) if agent.whole_episodes else None) or {}
    count = len(data) if len(data) <= MOST else SOME
    order = some(len(data), count, seed, "heldout", "rows")
    noise = torch.randn(len(order), agent.noise_size, generator=generator(seed, "heldout", "noise"), dtype=agent.dtype)

    def batches() -> Iterator[Batch]:
        for place in order.split(ROWS):
            data.expect(place)
            rows = place.to(data.device).expand(agent.members, -1)
            own = noise[place % len(noise)].to(agent.device).expand(agent.members, -1, -1)
            batch = data.sample(rows, agent.reads_next_action, target=targets.get("target"))
            yield agent.normalized(replace(batch, noise=own))

    advantage = torch.cat([agent.advantage(batch) for batch in batches()], 1)
    weight = agent.weights(advantage)
    parts = zip(batches(), weight.split(ROWS, 1), strict=True)
    loss = torch.cat([_loss(agent, batch, own) for batch, own in parts], 1)
    if agent.conditioned:
        # It is told of each action how good it is, and then imitates all of them.
        weight = torch.ones_like(weight)
    name = "nll" if agent.policy.head.known_density else "loss"
    found = {name: loss.mean(1), f"weighted_{name}": (weight * loss).sum(1) / weight.sum(1)}
    return found | (_value_error(agent, batches) if agent.value_iters else {})


def _loss(agent: Agent, batch: Batch, weight: Tensor) -> Tensor:
    """The head's loss of each action, [K, B]."""
    condition = agent.condition(batch, weight) if agent.conditioned else None
    noise = agent.noise(batch, "actor")
    return agent.policy.loss(agent.actor.theta, batch.obs, batch.action, noise, condition)[0]


def _value_error(agent: Agent, batches: Callable[[], Iterator[Batch]]) -> Metrics:
    """1 - the explained variance that the critic reports before a step, which is then taken back."""
    before = {name: tensor.clone() for name, tensor in agent.state_dict().items()}
    left, steps = torch.zeros(agent.members, device=agent.device, dtype=agent.dtype), 0
    for batch in batches():
        report = agent.critic_update(batch)
        agent.load_state_dict(before)
        if "explained_variance" not in report:
            return {}
        count = batch.reward.shape[1]
        left, steps = left + count * (1 - report["explained_variance"]), steps + count
    return {"value_error": left / steps}
