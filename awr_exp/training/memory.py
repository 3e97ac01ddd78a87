"""What runs take of the memory: whether it is there at all, and how many members fit a device."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from awr_exp.agents.agent import Agent
from awr_exp.data.following import row_bytes
from awr_exp.data.schema import Schema
from awr_exp.errors import UserError
from awr_exp.machine import free_memory
from awr_exp.training.schedules import ROW_BLOCK
from awr_exp.training.team import COPIES
from awr_exp.types import Spec

SHARE = 0.8
"""The share of what is free now that may be planned with; the rest is for the allocator, the evaluation and others."""
ACTIVATIONS = 12
"""Tensors as large as all hidden layers of a batch that an update holds at once, measured generously."""


NUMBER, ROW = 4, 8
"""Bytes of a float32, and of the number of a row."""
ENVIRONMENT = 3_000
"""Bytes of the smallest environment there is, in gymnasium's wrappers."""
PROCESS = 20_000_000
"""Bytes of a worker process that does nothing yet."""


def available(device: torch.device) -> int:
    """Bytes that may still be taken on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


def check(
    cfg: Mapping[str, Any],
    spec: Spec,
    parameters: int,
    rows: int,
    device: torch.device,
    trainer: str = "trainer",
) -> None:
    """Raises UserError where one member alone takes more than there is, at the very least, before anything is made.

    cfg: of a run, whose trainer is the one in question, called so; parameters: of all networks; rows: of the data set.
    """
    on_device = dict(_on_device(cfg, spec, parameters, rows))
    on_host = dict(_on_host(cfg, spec))
    groups = [(on_device | on_host, device)] if device.type == "cpu" else [(on_device, device), (on_host, HOST)]
    for needs, place in groups:
        free = available(place)
        if sum(needs.values()) > free:
            name = max(needs, key=lambda name: needs[name])
            group, _, setting = name.partition(".")
            where = f"{trainer}.{setting}" if group == "trainer" else name
            raise UserError(
                f"{where}={cfg[group][setting]} takes at least {_size(needs[name])} of memory, and {_size(free)} are "
                f"free on {place}: give a smaller one"
            )


HOST = torch.device("cpu")


def _on_device(cfg: Mapping[str, Any], spec: Spec, parameters: int, rows: int) -> Iterator[tuple[str, int]]:
    """What is needed on the device, in bytes, by the setting that causes it."""
    trainer, schedule = cfg["trainer"], cfg["schedule"]
    batch, hidden = trainer["batch_size"], cfg["network"].get("hidden", [])
    layers, learns = NUMBER * COPIES * parameters, NUMBER * batch * 2 * Schema(spec).width
    # The outputs of all layers and their gradients are due to whichever is more.
    outputs = NUMBER * 3 * batch * sum(hidden)
    wide = sum(hidden) > batch
    yield "network.hidden" if hidden else "network._target_", layers + (outputs if wide else 0)
    learns += 0 if wide else outputs
    if "replay_size" not in trainer:
        yield "trainer.batch_size", learns + ROW * ROW_BLOCK * batch
        return
    steps, name = max((schedule.get(name, 1), f"schedule.{name}") for name in ("actor_steps", "critic_steps"))
    slots = ROW * steps * batch
    if steps > batch:
        yield name, slots
    yield "trainer.batch_size", learns + (0 if steps > batch else slots)
    size = max(trainer["replay_size"], trainer["envs"] * spec.history)
    yield "trainer.replay_size", row_bytes(spec) * (rows + size)


def _on_host(cfg: Mapping[str, Any], spec: Spec) -> Iterator[tuple[str, int]]:
    """What environments and their workers need on the host, in bytes, by the setting that causes it."""
    trainer, each = cfg["trainer"], ENVIRONMENT + NUMBER * spec.obs_dim
    if not cfg["env"].get("_target_", "").endswith(".none"):
        yield "trainer.eval_episodes", each * trainer["eval_episodes"]
    if "envs" in trainer:
        yield "trainer.envs", (0 if cfg["env"].get("vectorized") else each) * trainer["envs"]
        yield "trainer.workers", PROCESS * trainer["workers"]
        samples = cfg["schedule"].get("samples_per_iteration", 1)
        yield "schedule.samples_per_iteration", NUMBER * Schema(spec).width * min(samples, trainer["env_steps"])


def _size(amount: int) -> str:
    """An amount of bytes as a text such as 3.2 GB."""
    units = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
    power = min(int(math.log10(max(1, amount)) / 3), len(units) - 1)
    return f"{amount / 1000**power:.3g} {units[power]}"


@contextmanager
def exhausted() -> Iterator[None]:
    """Inside, running out of memory is a UserError, whoever finds out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU torch has no class of its own for it.
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise UserError("no memory is left: give a smaller network, batch or replay, or fewer members") from error


def check_replay(spec: Spec, members: int, steps: int, device: torch.device) -> None:
    """Raises UserError where replays of so many steps, one a member, are more than there is memory for."""
    needed, free = members * steps * row_bytes(spec), available(device)
    if needed > free:
        raise UserError(
            f"trainer.replay_size takes {needed / 1e9:.1f} GB with observations of {spec.obs_dim} numbers, and "
            f"{free / 1e9:.1f} GB are free: give a smaller one"
        )


def check_targets(members: int, rows: int, device: torch.device) -> None:
    """Raises UserError where a target and a value of each row and member are more than there is room for."""
    needed, free = 2 * NUMBER * members * rows, available(device)
    if needed > free:
        raise UserError(
            f"this agent has a target for each of {rows:,} transitions, which take {_size(needed)} of memory, and "
            f"{_size(free)} are free on {device}: give a smaller dataset.max_transitions, fewer members, or an agent "
            "that looks at single steps, as with advantage=td"
        )


def check_actions(members: int, rows: int, numbers: int, device: torch.device) -> None:
    """Raises UserError where what each policy does in each state is more than there is room for."""
    needed, free = 3 * NUMBER * members * rows * numbers, available(device)
    if needed > free:
        raise UserError(
            f"evaluate=fqe keeps what the policies do in {rows:,} states, which takes {_size(needed)} of memory, and "
            f"{_size(free)} are free on {device}: leave it out, or give a smaller dataset.max_transitions"
        )


def capacity(agent: Agent, rows: int, kept: int, batch_size: int, device: torch.device, estimates: bool = False) -> int:
    """How many members like those of `agent` can train on the device; at least 1.

    rows: of the data that all share, for which each has targets; kept: of each one's own replay; estimates: whether the
    policies are evaluated on these rows in the end.
    """
    size = agent.actor.theta.element_size()
    numbers = COPIES * sum(network.theta[0].numel() for network in agent.networks.values())
    if agent.whole_episodes:
        # Whole-data targets, and their forerunners while they are made.
        numbers += 2 * max(rows, kept)
    if estimates:
        # What each policy does there and in the next state.
        numbers += 2 * rows * agent.spec.action_dim
    if device.type != "cpu":
        # On a CPU there is one small part of the members a core at work at a time.
        outputs = sum(shape[-1] for shape in agent.policy.network.shapes.values() if shape[0] > 1)
        numbers += ACTIVATIONS * batch_size * outputs
    return max(1, int(SHARE * available(device) / (size * numbers + kept * row_bytes(agent.spec))))
