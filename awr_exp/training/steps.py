"""The gradient steps of schedules as functions of an agent, of what it learns from, and of tensors.

A backend may compile them. Slots [S, K, B] say which transitions of a replay the batches of S steps have, and noise
[S, K, B, numbers] is theirs.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import Replay
from awr_exp.seeding import draw_noise
from awr_exp.types import Batch, Metrics


def update(agent: Agent, experience: object, batch: Batch) -> Metrics:
    """One update on a batch that was drawn before."""
    return agent.update(batch)


def sampled(data: Any, rows: Tensor, noise: Tensor, target: Tensor | None = None) -> Iterator[tuple[Batch]]:
    """Batches of a data set by rows [S, K, B], with their noise, and targets from target [K, N]."""
    return ((replace(data.sample(own, target=target), noise=drawn),) for own, drawn in zip(rows, noise, strict=True))


def slots_of(replay: Any, slots: Tensor, noise: Tensor, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """What `batch_step` takes, for each of slots [S, K, B]."""
    return ((own, drawn, *columns) for own, drawn in zip(slots, noise, strict=True))


def batch_step(agent: Agent, replay: Replay, slots: Tensor, noise: Tensor, target: Tensor | None = None) -> Metrics:
    """One update on the batch in slots [K, B], toward these targets of the replay, if any."""
    return agent.update(replace(replay.take(slots, target=target), noise=noise))


def critic_steps(agent: Agent, replay: Replay, slots: Tensor, noise: Tensor, target: Tensor | None = None) -> Metrics:
    """A step of the critic for each of S slots; the sums of their metrics."""
    with torch.no_grad():
        batches = zip(slots.unbind(), noise.unbind(), strict=True)
        taken = (replace(replay.take(rows, target=target), noise=drawn) for rows, drawn in batches)
        return _sum([agent.critic_update(agent.normalized(batch)) for batch in taken])


def actor_steps(agent: Agent, replay: Replay, slots: Tensor, noise: Tensor, weight: Tensor) -> Metrics:
    """A step of the actor for each of S slots, with weights [K, T * E] of the replay; the sums of their metrics."""
    with torch.no_grad():
        batches = zip(slots.unbind(), noise.unbind(), strict=True)
        taken = ((replace(replay.take(rows), noise=drawn), weight.gather(1, rows)) for rows, drawn in batches)
        return _sum([agent.actor_update(agent.normalized(batch), own) for batch, own in taken])


def _sum(metrics: list[Metrics]) -> Metrics:
    return {name: torch.stack([one[name] for one in metrics]).sum(0) for name in metrics[0]}


@torch.no_grad()
def whole_advantage(agent: Agent, replay: Replay, step: int) -> Tensor:
    """A(s, a) of all transitions [K, N], with the critic as it is after `step` steps of the run."""
    columns = agent.targets(replay) or {}
    if agent.judged_by is not None and agent.judged_by <= columns.keys():
        return agent.advantage(Batch.of_columns(**columns))

    def of(number: int, rows: Tensor) -> Tensor:
        names, shape = ("advantage", step, number), (1, len(rows))
        (noise,) = draw_noise(agent.seeds, names, shape, agent.noise_size, agent.device)
        batch = replay.sample(rows.unsqueeze(0), **columns)
        return agent.advantage(agent.normalized(replace(batch, noise=noise)))

    parts = torch.arange(len(replay), device=agent.device).split(agent.chunk)
    return torch.cat([of(number, rows) for number, rows in enumerate(parts)], 1)
