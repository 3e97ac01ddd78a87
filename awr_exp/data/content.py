"""What the numbers of a data set say is wrong with it, or may be."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.schema import STORED, Schema
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.types import Spec

FIELDS = dict(zip(STORED, ("observations", "actions", "rewards", "terminations", "truncations"), strict=True))
"""The names that Minari has for the columns."""
BOUND_TOLERANCE = 1e-4
"""How far an action may lie outside its bounds, relative to their distance: float32 rounding, not a mistake."""
PIECE = 262_144
"""Rows that are looked at in one piece."""
EPISODES = 10_000
"""Episodes whose ends are looked at, of evenly spaced places."""
NUMBERS = 2**22
"""Numbers of rows at such ends that are looked at in one piece."""
NARROW = 1e-3
"""Share of the distance of its bounds that an entry of actions should fill, for a policy works in units of that."""


def check(id: str, names: Sequence[str], packed: Tensor, lengths: NDArray[np.int64], spec: Spec) -> None:
    """Check the packed rows of data set `id`, and truncate each episode that does not say how it ends.

    names: of the episodes. Raises UserError, naming episode, field and step, for what cannot be learnt from.
    """
    schema, final = Schema(spec, STORED), (lengths + 1).cumsum() - 1

    def refuse(name: str, values: NDArray[np.generic], good: NDArray[np.bool_], text: str) -> None:
        rows = np.flatnonzero(~good.all(1))
        if rows.size:
            row = int(rows[0])
            episode = int(np.searchsorted(final, row))
            length = int(lengths[episode])
            entry = int((~good[row]).argmax())
            found = {"value": values[row][entry], "step": row - int(final[episode]) + length, "length": length}
            said = text.format(**found, why=outside(spec, entry) if name == "action" else "")
            raise UserError(f"data set '{id}', {names[episode]}: {FIELDS[name]} {said}")

    for name in ("terminated", "truncated"):
        flags = schema.view(packed, name).numpy()
        said = "holds {value:g} at step {step} of {length}; a flag is true or false"
        refuse(name, flags, (flags == 0) | (flags == 1), said)
        inner = flags.copy()
        inner[final - 1] = 0
        said = "is set at step {step} of {length}; an episode must end where it is, with its own last observation"
        refuse(name, inner, inner == 0, said)
    ended, cut = (schema.view(packed, name).numpy() for name in ("terminated", "truncated"))
    cut[final - 1] = 1 - ended[final - 1]
    for name in ("obs", "action", "reward"):
        for values in (view.numpy() for view in schema.views(packed, name) if view.is_floating_point()):
            refuse(name, values, np.isfinite(values), "holds {value:g} at step {step}; repair or remove the episode")
    action = schema.view(packed, "action").numpy()
    good = inside(action, spec)
    # A final observation has no action.
    good[final] = True
    refuse("action", action + spec.starts, good, "holds {value:g} at step {step}; {why}")


def outside(spec: Spec, entry: int) -> str:
    """What is said of an entry of an action that is not in its space."""
    if not spec.discrete:
        return "it is outside the bounds of its space: clip it, or give the data set's action_space infinite ones"
    first = int(np.ravel(spec.starts)[entry])
    place = "its space" if spec.num_actions is not None else f"entry {spec.action_names[entry]} of its space"
    return f"{place} has the whole numbers from {first} to {first + spec.counts[entry] - 1}"


def inside(action: NDArray[np.float32], spec: Spec) -> NDArray[np.bool_]:
    """Whether each entry of actions [M, n] is one of their space, where choices count from 0."""
    if spec.discrete:
        good: NDArray[np.bool_] = (action >= 0) & (action < np.array(spec.counts)) & (action == action.round())
        return good
    low, high = np.array(spec.action_low, np.float32), np.array(spec.action_high, np.float32)
    span = high - low
    size = np.where(np.isfinite(span) & (span > 0), span, np.fmin(np.abs(low), np.abs(high)))
    slack = np.where(np.isfinite(size), BOUND_TOLERANCE * size, 0)
    within: NDArray[np.bool_] = (action >= low - slack) & (action <= high + slack)
    return within


def doubts(data: Transitions, limit: int | None) -> Iterator[str]:
    """What may be wrong with data that can be learnt from; limit: the steps that the environment gives an episode."""
    begins, lengths = data.lie.begins, data.lengths.to(data.lie.begins.device)
    looked = torch.arange(0, len(begins), -(-len(begins) // EPISODES), device=begins.device)
    joined, late, ended = 0, 0, 0
    for some in looked.split(max(1, NUMBERS // data.schema.width)):
        final = begins[some] + lengths[some]
        terminated = data.schema.read(data.held, "terminated", final - 1)
        ended, late = ended + int(terminated.sum()), late + int((terminated & (lengths[some] == limit)).sum())
        some, final = some[some + 1 < len(begins)], final[some + 1 < len(begins)]
        rows = (final, begins[some + 1], begins[some])
        last, of_next, own = (data.schema.read(data.held, "obs", each) for each in rows)
        joined += int(((last == of_next).all(1) & (last != own).any(1)).sum())
    among = "its episodes" if len(looked) == len(begins) else f"{len(looked):,} episodes that were looked at"
    if joined > max(2, (len(looked) - 1) / 2):
        yield (
            f"{joined} of {among} end with the very observation that the next one begins with: that is right for "
            "parts of one episode; where a vectorised environment reset itself, write the data anew with true last "
            "observations and without the steps that only reset"
        )
    if late > max(2, ended / 2):
        yield (
            f"{late} of {among} terminate after {limit} steps, the time limit of its environment: if that is what "
            "ended them, write the data anew with truncations instead, for values go on beyond a limit"
        )
    if not data.spec.discrete:
        yield from _narrow(data)


def _narrow(data: Transitions) -> Iterator[str]:
    """The first entry of actions that fills next to nothing of its bounds."""
    least, most = torch.tensor(data.spec.action_low), torch.tensor(data.spec.action_high)
    low, high = torch.full_like(least, math.inf), torch.full_like(most, -math.inf)
    wanted = torch.where((most - least).isfinite(), NARROW * (most - least), -math.inf)
    for begin in range(0, len(data), PIECE):
        action = data.column("action", begin, begin + PIECE)
        low, high = torch.minimum(low, action.amin(0)), torch.maximum(high, action.amax(0))
        # A data set that is mapped need not be read to its end.
        if (high - low >= wanted).all():
            return
    for entry in ((high > low) & (high - low < wanted)).nonzero().flatten().tolist()[:1]:
        yield (
            f"entry {entry} of its actions is from {low[entry]:g} to {high[entry]:g}, and its bounds are from "
            f"{least[entry]:g} to {most[entry]:g}: a policy can hardly tell such actions apart; give its action_space "
            "nearer bounds, or infinite ones"
        )
