"""The whole policy, from an observation to an action inside its bounds, as a file that is verified before it stays."""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from awr_exp.errors import UserError, first_line, unwritable
from awr_exp.exporting.formats import Acting, check_place, chosen
from awr_exp.layout import described
from awr_exp.results import atomic_write
from awr_exp.surroundings import usual
from awr_exp.trained import TrainedPolicy

ROWS, FAR = 1_000, 100
"""Observations that a file is verified on, and those among them that are far from what the normaliser knows."""
ROUNDING, TURNS, TOLERANCE = 1e-5, 16, 1e-4
"""By how much observations are moved, and how often, to tell what rounding makes of an action; and the share of the
largest action by which others may differ."""


class Sampling(nn.Module):
    """A policy that acts by samples instead of by its mode."""

    def __init__(self, policy: TrainedPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, obs: Tensor) -> Tensor:
        return self.policy(obs, deterministic=False)


@usual()
def export(policy: TrainedPolicy, path: str | Path, sample: bool = False) -> None:
    """Write a policy as a file of the kind that the suffix of its path says, once it is known to act as the policy.

    The file maps flat observations [B, obs_dim] of float32, of any B, to actions as the policy gives them. sample:
    drawn inside, instead of the mode. Raises UserError if there is such a file, if it cannot be written, if such a
    file cannot hold this policy, or if it would act otherwise.
    """
    path = Path(path)
    format = chosen(path)
    check_place(path)
    policy = copy.deepcopy(policy).cpu().float()
    try:
        with quietly():
            content = format.encoded(program(policy, sample), about(policy, sample))
            acting = format.acting(content)
            wrong = differing(policy, acting)
    except UserError as error:
        raise UserError(f"{path} cannot hold this policy: {error}") from None
    except Exception as error:  # of a part of one's own
        reason = f"its network or its head is no program of tensors ({first_line(error)})"
        raise UserError(f"{path} cannot hold this policy: {reason}") from error
    if wrong:
        raise UserError(
            f"{path} was not kept: on {wrong} of {ROWS} observations it would act otherwise than the policy"
        )
    check_place(path)
    try:
        atomic_write(path, content, durable=True)
    except OSError as error:
        raise unwritable(path, error) from None


@contextmanager
def quietly() -> Iterator[None]:
    """Inside, what exporters say of their own versions and passes stays unsaid."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def program(policy: TrainedPolicy, sample: bool) -> ExportedProgram:
    """The policy as a graph of tensors, of any number of observations."""
    module = Sampling(policy) if sample else policy
    obs = torch.zeros(3, policy.spec.obs_dim)
    exported = torch.export.export(module, (obs,), dynamic_shapes={"obs": {0: Dim("batch")}})
    for node in exported.graph.nodes:
        # Where the code lies on this machine is nobody else's business.
        node.meta.pop("stack_trace", None)
    return exported


def about(policy: TrainedPolicy, sample: bool) -> dict[str, str]:
    """What a file says of itself, by name."""
    spec = policy.spec
    best = f"the best of {policy.judge.count} samples, as Q judges them" if policy.judge else "the mode"
    order = f": {described(spec.observation)}, in this order" if spec.observation else ""
    kind = f"{'int64' if spec.discrete else 'float32'} [{', '.join(map(str, ('B', *spec.action_shape)))}]"
    kind += f" of {spec.action_parts}" if spec.action else ""
    return {
        "source": policy.source,
        "policy": repr(policy),
        "obs": f"float32 [B, {spec.obs_dim}]{order}",
        "action": f"{kind}, {'a sample' if sample else best}",
        "spec": json.dumps(asdict(spec)),
    }


def differing(policy: TrainedPolicy, acting: Acting) -> int:
    """On how many of ROWS observations a file acts otherwise than the policy does, or would but for rounding.

    Where two choices are equally good, rounding decides: so an action is right, too, if it is the policy's own for an
    observation that is moved by so little. Samples are compared by the same noise.
    """
    rng = np.random.default_rng(0)
    obs = observations(policy, rng)
    found, noise = acting(obs)
    if acting(obs[:1])[0].shape != found[:1].shape:
        return ROWS
    wrong = np.ones(ROWS, bool)
    for turn in range(TURNS):
        moved = obs * (1 + (turn > 0) * ROUNDING * rng.standard_normal(obs.shape, np.float32))
        own = act(policy, moved, noise)
        if (own.shape, own.dtype) != (found.shape, found.dtype):
            return ROWS
        close = np.isclose(found, own, rtol=0, atol=TOLERANCE * np.abs(own).max(0))
        wrong &= ~close.reshape(ROWS, -1).all(1)
        if not wrong.any():
            break
    return int(wrong.sum())


def observations(policy: TrainedPolicy, rng: np.random.Generator) -> NDArray[np.float32]:
    """[ROWS, obs_dim], such as the normaliser knows; the first FAR of them are far from that."""
    mean, std = (each.numpy() for each in (policy.mean, policy.std))
    distance = rng.standard_normal((ROWS, policy.spec.obs_dim), np.float32)
    distance[:FAR] *= 100
    return mean + std * distance


@torch.no_grad()
def act(policy: TrainedPolicy, obs: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[Any]:
    return policy.act(torch.as_tensor(obs), None if noise is None else torch.as_tensor(noise)).numpy()
