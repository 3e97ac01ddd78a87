"""The steps of a schedule as fast as this machine takes them: the one place where a backend is chosen.

A step is a function of an agent, of what it learns from, and of tensors. Every backend has the results of the plain
function up to rounding, and says by itself what it cannot do: the compiler and the captured graph of
`awr_exp.training.accelerate` fall back to the plain function, and the C++ of `awr_exp.training.native` refuses agents
that it has no code for.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.training import native, native_library
from awr_exp.training.accelerate import Update, accelerate, pays_off
from awr_exp.training.means import Means
from awr_exp.types import Metrics

Functions = dict[str, Callable[[Agent, Any], Update]]
"""The steps of a schedule by name; each is made for an agent and for what it learns from."""

WORTHWHILE = 500
"""Updates from which the C++ pays off, which takes a few seconds to compile on first use."""
MANY = 200_000
"""Gradient steps from which compiling several of them as one, which takes longer, pays off."""
AT_ONCE = 8
"""Gradient steps that are then compiled as one."""


def _in_cpp(agent: Agent, compile: str | bool, updates: int) -> bool:
    wanted = updates >= WORTHWHILE if compile == "auto" else bool(compile)
    return wanted and native.fits(agent) and native_library.library() is not None


def one_by_one(
    update: Callable[..., Metrics],
    taken: Callable[..., Iterator[tuple[Any, ...]]],
    compile: str | bool,
    updates: int,
    device: torch.device,
) -> Callable[[Agent, Any], Update]:
    """A function of rows and noise [S, K, B, ...] that updates an agent on one batch after another, `updates` in all.

    It yields the metrics of each. taken: from what is learnt from, rows, noise and targets to what `update` gets.
    """
    fast = cache(lambda: accelerate(update, compile, updates, device))

    def chosen(agent: Agent, experience: Any) -> Update:
        if _in_cpp(agent, compile, updates):
            return partial(native.updates, agent, experience)
        return partial(_each, fast()(agent, experience), partial(taken, experience))

    return chosen


def _each(update: Update, taken: Callable[..., Iterator[tuple[Any, ...]]], *drawn: Tensor) -> Iterator[Metrics]:
    return (update(*one) for one in taken(*drawn))


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
