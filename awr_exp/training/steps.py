"""The gradient steps of schedules, as fast as this machine takes them.

A step is a function of an agent, of what it learns from, and of tensors. Slots [S, K, B] say which transitions of a
replay the batches of S steps have, and noise [S, K, B, numbers] is theirs.

`one_by_one` and `in_runs` are the one place where a backend is chosen. Every backend has the results of the plain
function up to rounding, and says by itself what it cannot do: the compiler and the captured graph of
`awr_exp.training.accelerate` fall back to the plain function, and the C++ of `awr_exp.training.native` refuses agents
that it has no code for.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import Replay
from awr_exp.math.blocks import side_by_side
from awr_exp.seeding import draw_noise
from awr_exp.training import native, native_library
from awr_exp.training.accelerate import Update, accelerate, pays_off
from awr_exp.training.ahead import ahead
from awr_exp.training.means import Means
from awr_exp.types import Batch, Metrics

Functions = dict[str, Callable[[Agent, Any], Update]]
"""The steps of a schedule by name; each is made for an agent and for what it learns from."""

WORTHWHILE = 500
"""Updates from which the C++ pays off, which takes a few seconds to compile on first use."""
MANY = 200_000
"""Gradient steps from which compiling several of them as one, which takes longer, pays off."""
AT_ONCE = 8
"""Gradient steps that are then compiled as one."""


def update(agent: Agent, experience: object, batch: Batch) -> Metrics:
    """One update on a batch that was drawn before."""
    return agent.update(batch)


def sampled(
    agent: Agent, data: Any, rows: Tensor, noise: Tensor, target: Tensor | None = None
) -> Iterator[tuple[Batch]]:
    """Batches of a data set by rows [S, K, B], with their noise, and targets from target [K, N].

    Where the rows are not on the agent's device, the next batch travels while one is learnt from.
    """
    each = (
        (replace(data.sample(own, agent.reads_next_action, target=target), noise=drawn),)
        for own, drawn in zip(rows, noise, strict=True)
    )
    return each if data.held.device == agent.device else ahead(each, agent.device)


def slots_of(agent: Agent, replay: Any, slots: Tensor, noise: Tensor, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """What `batch_step` takes, for each of slots [S, K, B]."""
    return ((own, drawn, *columns) for own, drawn in zip(slots, noise, strict=True))


def taken(agent: Agent, replay: Replay, slots: Tensor, noise: Tensor, **columns: Tensor | None) -> Batch:
    """The batch in slots [K, B], with what the agent reads of it."""
    return replace(replay.take(slots, agent.reads_next_action, **columns), noise=noise)


def batch_step(agent: Agent, replay: Replay, slots: Tensor, noise: Tensor, target: Tensor | None = None) -> Metrics:
    """One update on the batch in slots [K, B], toward these targets of the replay, if any."""
    return agent.update(taken(agent, replay, slots, noise, target=target))


def critic_steps(agent: Agent, replay: Replay, slots: Tensor, noise: Tensor, target: Tensor | None = None) -> Metrics:
    """A step of the critic for each of S slots; the sums of their metrics."""
    with torch.no_grad():
        batches = zip(slots.unbind(), noise.unbind(), strict=True)
        found = (taken(agent, replay, rows, drawn, target=target) for rows, drawn in batches)
        return _sum([agent.critic_update(agent.normalized(batch)) for batch in found])


def actor_steps(agent: Agent, replay: Replay, slots: Tensor, noise: Tensor, weight: Tensor) -> Metrics:
    """A step of the actor for each of S slots, with weights [K, T * E] of the replay; the sums of their metrics."""
    with torch.no_grad():
        batches = zip(slots.unbind(), noise.unbind(), strict=True)
        found = ((taken(agent, replay, rows, drawn), weight.gather(1, rows)) for rows, drawn in batches)
        return _sum([agent.actor_update(agent.normalized(batch), own) for batch, own in found])


def _sum(metrics: list[Metrics]) -> Metrics:
    return {name: torch.stack([one[name] for one in metrics]).sum(0) for name in metrics[0]}


@torch.no_grad()
def whole_advantage(agent: Agent, replay: Replay, step: int) -> Tensor:
    """A(s, a) of all transitions [K, N], with the critic as it is after `step` steps of the run."""
    columns = agent.targets(replay) or {}
    if agent.judged_by is not None and agent.judged_by <= columns.keys():
        return agent.advantage(Batch.of_columns(**(columns or {"reward": replay.reward})))

    def of(number: int, rows: Tensor) -> Tensor:
        names, shape = ("advantage", step, number), (1, len(rows))
        (noise,) = draw_noise(agent.seeds, names, shape, agent.noise_size, agent.device)
        batch = replay.sample(rows.unsqueeze(0), agent.reads_next_action, **columns)
        return agent.advantage(agent.normalized(replace(batch, noise=noise)))

    parts = torch.arange(len(replay), device=agent.device).split(agent.chunk)
    return side_by_side((of(number, rows) for number, rows in enumerate(parts)), len(replay))


def _in_cpp(agent: Agent, compile: str | bool, updates: int) -> bool:
    wanted = updates >= WORTHWHILE if compile == "auto" else bool(compile)
    return wanted and native.fits(agent) and native_library.library() is not None


def one_by_one(
    update: Callable[..., Metrics],
    batches: Callable[..., Iterator[tuple[Any, ...]]],
    compile: str | bool,
    updates: int,
    device: torch.device,
) -> Callable[[Agent, Any], Update]:
    """A function of rows and noise [S, K, B, ...] that updates an agent on one batch after another, `updates` in all.

    Its first argument are the means that metrics are added to. batches: from the agent, what is learnt from, rows,
    noise and targets to what `update` gets.
    """
    fast = cache(lambda: accelerate(update, compile, updates, device))

    def chosen(agent: Agent, experience: Any) -> Update:
        if _in_cpp(agent, compile, updates):
            return partial(native.updates, agent, experience)
        return partial(_each, fast()(agent, experience), partial(batches, agent, experience))

    return chosen


def _each(update: Update, batches: Callable[..., Iterator[tuple[Any, ...]]], means: Means, *drawn: Tensor) -> None:
    for one in batches(*drawn):
        means.add(update(*one))


def in_runs(
    steps: Callable[..., Metrics],
    native_steps: Callable[..., Metrics],
    compile: str | bool,
    updates: int,
    device: torch.device,
) -> Callable[[Agent, Any], Update]:
    """A function of many steps at once, slots and noise [S, K, B, ...]; native_steps: the same in C++."""
    compiles = pays_off(compile, updates, device)
    # Only where it is needed: preparing to compile takes seconds. Once for all agents, which share it.
    fast = cache(lambda: accelerate(steps, compile, updates, device))

    def chosen(agent: Agent, experience: Any) -> Update:
        if _in_cpp(agent, compile, updates):
            return partial(native_steps, agent, experience)
        # Two, since a captured graph is for one number of slots.
        many, one = fast()(agent, experience), fast()(agent, experience)
        return partial(_in_parts, many, one, AT_ONCE if compiles and updates >= MANY else 1)

    return chosen


def _in_parts(many: Update, one: Update, at_once: int, slots: Tensor, noise: Tensor, *columns: Tensor) -> Metrics:
    """The sums of metrics of steps on slots [S, K, B]: `many` takes `at_once` of them, and `one` the rest."""
    whole, means = len(slots) - len(slots) % at_once, Means()
    for learn, size, chosen in ((many, at_once, slice(whole)), (one, 1, slice(whole, None))):
        if len(slots[chosen]):
            for part, drawn in zip(slots[chosen].split(size), noise[chosen].split(size), strict=True):
                means.add(learn(part, drawn, *columns))
    return means.sums
