"""What is measured once, when all is trained, to say why a run does not learn: see `awr_exp.math.diagnosis`."""

import logging
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data import facts
from awr_exp.data.transitions import Transitions
from awr_exp.errors import named
from awr_exp.seeding import generator
from awr_exp.training.callbacks import Callback
from awr_exp.training.evaluate import Episodes

if TYPE_CHECKING:
    from awr_exp.training.run import Run
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)
EPISODES = 5
"""Episodes of each member that are played with samples of its policy."""
Found = list[dict[str, float]]
"""Metrics of each member, without `diagnosis/`."""


class Examine(Callback):
    """Logs `diagnosis/` metrics of each member at the end. What cannot be measured is left out, and costs no run."""

    def end(self, trainer: "Trainer") -> None:
        begun = time.perf_counter()
        try:
            for member, found in enumerate(_examined(trainer)):
                known = {f"diagnosis/{name}": value for name, value in found.items() if math.isfinite(value)}
                if known:
                    trainer.log(member, known)
        except Exception as error:
            log.info("there is no diagnosis of what could not be measured: %s", named(error))
        trainer.evaluating += time.perf_counter() - begun


def _examined(trainer: "Trainer") -> Found:
    # What is collected belongs to the policy and its environment, and compares with no data.
    data = trainer.data if trainer.unit == "update" else None
    found = [_of_returns(run, data) for run in trainer.runs]
    if data is None or not any(trainer.going_on):
        return found
    steps, coverage = facts.Steps(data), facts.coverage(data)
    agent, parts = trainer.agent.averaged(), steps.batch.obs.split(trainer.agent.chunk, 1)
    distances = steps.distances(torch.cat([agent.act(part) for part in parts], 1))
    played = _sampled(trainer, steps) if trainer.evaluates else [{}] * len(found)
    each = zip(found, distances, played, strict=True)
    return [coverage | own | {"policy_distance": distance} | sampled for own, distance, sampled in each]


def _of_returns(run: "Run", data: Transitions | None) -> dict[str, float]:
    """What the evaluations of a run say beside one another, and beside the data's returns."""
    if not run.returns:
        return {}
    found = {"best_return_mean": run.best}
    if data and data.info.return_std:
        # What it is at the most, but for chance.
        sure = np.mean(run.returns) + 2 * _standard_error(run.returns)
        found["lead"] = float(sure - data.info.return_mean) / data.info.return_std
    return found


def _standard_error(returns: Sequence[float] | NDArray[np.float64]) -> float:
    """Of the mean of returns; nan of a single one, of which nobody knows."""
    return float(np.std(returns, ddof=1)) / len(returns) ** 0.5 if len(returns) > 1 else math.nan


def _sampled(trainer: "Trainer", steps: facts.Steps) -> Found:
    """What episodes with samples of the policies say, from the same starts as the last evaluation."""
    assert trainer.evaluates is not None
    evaluator, likeness = trainer.evaluates.evaluator, steps.likeness()
    assert evaluator is not None
    acting = Sampling(trainer.agent.averaged(), EPISODES if likeness else 0)
    played = evaluator.play(acting, trainer.going_on, EPISODES)
    found: Found = []
    for member, run in enumerate(trainer.runs):
        if run.error is not None or not run.returns:
            found.append({})
            continue
        returns = played.returns[member, :EPISODES]
        own = {"sampled_return_mean": float(returns.mean())}
        lead = returns - np.array(run.returns[: len(returns)])
        if trainer.data and trainer.data.info.return_std:
            # What it is at the least, but for chance.
            sure = lead.mean() - 2 * _standard_error(lead)
            own["sampled_lead"] = float(sure) / trainer.data.info.return_std
        if likeness and not played.failures[member] and (change := acting.changes(member, played, steps)):
            own["foreign_steps"] = likeness.foreign(*change)
        found.append(own)
    return found


class Sampling:
    """Acts by samples of the policies, and keeps what it saw and did in the first episodes of each member."""

    def __init__(self, agent: Agent, episodes: int) -> None:
        self.agent, self.episodes = agent, episodes
        self.spec, self.device, self.dtype, self.members = agent.spec, agent.device, agent.dtype, agent.members
        self.generators = [generator(seed, "diagnosis") for seed in agent.seeds]
        self.seen: list[Tensor] = []
        self.done: list[Tensor] = []

    def act(self, obs: Tensor) -> Tensor:
        """Actions [K, B, ...] for obs [K, B, obs_dim] in the data's units."""
        shape = obs.shape[1], self.agent.policy.head.noise
        noise = torch.stack([torch.randn(shape, generator=own) for own in self.generators]).to(obs)
        action = self.agent.act(obs, noise)
        # A copy: the evaluator writes the next ones to the same memory.
        self.seen.append(obs[:, : self.episodes].cpu().clone())
        self.done.append(action[:, : self.episodes].cpu())
        return action

    def changes(self, member: int, played: Episodes, steps: facts.Steps) -> tuple[Tensor, Tensor] | None:
        """What `Likeness` takes of a member's actions, but for the last of each episode; None if there are no others.

        No episode has begun anew in between.
        """
        seen, done = (torch.stack([one[member] for one in kept]) for kept in (self.seen, self.done))
        rows = [
            (seen[: end - 1, episode], done[: end - 1, episode], seen[1:end, episode])
            for episode, end in enumerate((-(-played.lengths[member, : self.episodes] // self.spec.chunk)).tolist())
            if end > 1
        ]
        return steps.change(*map(torch.cat, zip(*rows, strict=True))) if rows else None
