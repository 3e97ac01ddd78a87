"""How many members fit a device."""

import torch

from awr_exp.agents.agent import Agent
from awr_exp.data.replay import width
from awr_exp.errors import UserError
from awr_exp.machine import free_memory
from awr_exp.training.blocks import COPIES
from awr_exp.types import Spec

SHARE = 0.8
"""Of what is free now; the rest is for the allocator, the evaluation and others."""
ACTIVATIONS = 12
"""Tensors as large as all hidden layers of a batch that an update holds at once, measured generously."""


def available(device: torch.device) -> int:
    """Bytes that may still be taken on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return free_memory()


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
