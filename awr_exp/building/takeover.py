"""Agents that begin as other runs ended, or go on where they stopped."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from awr_exp.agents.agent import Agent
from awr_exp.agents.members import AVERAGE
from awr_exp.errors import UserError
from awr_exp.metadata import difference
from awr_exp.training import checkpoint

log = logging.getLogger(__name__)

Metadata = dict[str, Any]
Found = tuple[checkpoint.State, Metadata]
"""A checkpoint."""


def take_over(agent: Agent, mine: Sequence[Metadata], begin: Sequence[Found]) -> None:
    """Let each member of an agent begin as another run ended, or with a new critic where these runs had none.

    mine: each member's own metadata. Raises UserError where what was learnt would mean something else.
    """
    states, theirs = zip(*begin, strict=True)
    check_same("the policy to begin with", theirs, mine)
    state = {name: torch.cat([one[name] for one in states]) for name in states[0]}
    # The best policy was found with its averaged parameters, where there are some.
    state["actor.theta"] = state.get(AVERAGE, state["actor.theta"])
    before, now = theirs[0].get("kind"), mine[0].get("kind")
    own = {f"{name}.{part}" for name, net in agent.networks.items() if name != "actor" for part in net.tensors()}
    if not own & state.keys():
        log.info("the policy to begin with has no critic: a new one is learnt")
        state |= {name: tensor for name, tensor in agent.state_dict().items() if name in own}
    elif before not in (None, now):
        values = "the policy to begin with was trained as %s, and its critic is taken for that of %s"
        log.warning(f"warning: {values}: what the two predict may differ", before, now)
    try:
        agent.load_state_dict(state)
    except ValueError as error:
        raise UserError(f"the policy to begin with has another agent, network or task: {error}") from None
    forget_others_moments(agent, theirs, mine)


def check_same(what: str, theirs: Sequence[Metadata], mine: Sequence[Metadata]) -> None:
    """Raises UserError where what was learnt would mean something else with the metadata of now."""
    for before, now in zip(theirs, mine, strict=True):
        if other := difference(before, now):
            raise UserError(f"{what} was trained with {other}: give the same, or train anew")


def forget_others_moments(agent: Agent, theirs: Sequence[Metadata], mine: Sequence[Metadata]) -> None:
    """Start the moments of the optimizer anew where they are those of another one."""
    if theirs[0].get("optimizer", mine[0]["optimizer"]) != mine[0]["optimizer"]:
        log.info("the policy to begin with was trained with another optimizer, whose moments start anew")
        for network in agent.networks.values():
            network.forget_moments()
