"""How many members fit a device."""

import sys
from pathlib import Path

import torch

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import width
from awr_exp.errors import UserError
from awr_exp.training.blocks import COPIES
from awr_exp.types import Spec

SHARE = 0.8
"""Of what is free now; the rest is for the allocator, the evaluation and others."""
UNKNOWN = sys.maxsize
ACTIVATIONS = 12
"""Tensors as large as all hidden layers of a batch that an update holds at once, measured generously."""


def available(device: torch.device) -> int:
    """Bytes that may still be taken on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_of_machine(Path("/proc/meminfo")), _of_container(Path("/sys/fs/cgroup")))


def _of_machine(meminfo: Path) -> int:
    try:
        (line,) = (line for line in meminfo.read_text().splitlines() if line.startswith("MemAvailable:"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return UNKNOWN


def _of_container(group: Path) -> int:
    """What a container or a scheduler leaves of its limit; files that are only kept in memory do not count."""
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        (line,) = (line for line in (group / "memory.stat").read_text().splitlines() if line[:14] == "inactive_file ")
        return limit - used + int(line.split()[1])
    except (OSError, ValueError):  # no limit, or no such thing here
        return UNKNOWN


def check_replay(spec: Spec, members: int, steps: int, device: torch.device) -> None:
    """Raises UserError where replays of so many steps, one a member, are more than there is memory for."""
    needed, free = 4 * members * steps * width(spec), available(device)
    if needed > free:
        raise UserError(
            f"trainer.replay_size takes {needed / 1e9:.1f} GB with observations of {spec.obs_dim} numbers, and "
            f"{free / 1e9:.1f} GB are free: give a smaller one"
        )


def capacity(agent: Agent, rows: int, kept: int, batch_size: int, device: torch.device) -> int:
    """How many members like those of `agent` can train on the device; at least 1.

    rows: of the data that all share, for which each has targets; kept: of each one's own replay.
    """
    size = agent.obs_mean.element_size()
    numbers = COPIES * sum(network.theta[0].numel() for network in agent.networks.values())
    if agent.whole_episodes:
        # Whole-data targets, and their forerunners while they are made.
        numbers += 2 * max(rows, kept)
    numbers += kept * width(agent.spec)
    if device.type != "cpu":
        # On a CPU there is one small block of members a core at work at a time.
        numbers += ACTIVATIONS * batch_size * sum(agent.policy.network.hidden)
    return max(1, int(SHARE * available(device) / (size * numbers)))
