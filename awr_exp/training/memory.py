"""How many members fit a device."""

import os

import torch

from awr_exp.agents.agent import Agent
from awr_exp.training.blocks import COPIES

SHARE = 0.8
"""Of what is free now; the rest is for the allocator, the evaluation and others."""
ACTIVATIONS = 12
"""Tensors as large as all hidden layers of a batch that an update holds at once, measured generously."""


def available(device: torch.device) -> int:
    """Bytes that are free on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def capacity(agent: Agent, rows: int, batch_size: int, device: torch.device) -> int:
    """How many members like those of `agent` can train on the device with targets for this many rows; at least 1."""
    size = agent.obs_mean.element_size()
    parameters = COPIES * sum(network.theta[0].numel() for network in agent.networks.values())
    activations = ACTIVATIONS * batch_size * sum(agent.policy.network.hidden)
    estimator = getattr(agent, "advantage", None)
    # Whole-data targets, and their forerunners while they are made.
    targets = 0 if estimator is None or estimator.one_step else 2 * rows
    return max(1, int(SHARE * available(device) / (size * (parameters + activations + targets))))
