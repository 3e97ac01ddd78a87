"""The spaces of steps that no environment describes, as the numbers themselves say."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.data.content import inside, outside
from awr_exp.data.steps import Steps
from awr_exp.envs.spaces import MOST_CHOICES, spec_of
from awr_exp.errors import UserError

Bound = float | Sequence[float] | None
"""A bound of all entries of an action, or of each; None where none is given."""


def observation_space(steps: Steps, env: gymnasium.Env | None) -> spaces.Box:
    """That of the environment, if it is of the same form; else a Box without bounds, or of bytes, as of images."""
    shape, dtype = steps.observations.shape[1:], steps.observations.dtype
    theirs = env.observation_space if env else None
    # Bytes stay bytes, and nothing else becomes them.
    if isinstance(theirs, spaces.Box) and theirs.shape == shape and (theirs.dtype == np.uint8) == (dtype == np.uint8):
        return theirs
    return spaces.Box(0, 255, shape, np.uint8) if dtype == np.uint8 else spaces.Box(-np.inf, np.inf, shape, dtype.type)


def action_space(steps: Steps, low: Bound, high: Bound, env: gymnasium.Env | None) -> Any:
    """That of the environment, or what is given, or what the actions say.

    Whole numbers by their type are choices, unless bounds are given; anything else has bounds that are its least and
    its most value, rounded outward. Raises UserError, naming the place, for an action that is not in the space.
    """
    least, most = _extent(steps)
    if env:
        space = env.action_space
    elif steps.whole and low is None and high is None:
        space = _choices(np.minimum(least, 0).astype(np.int64), most.astype(np.int64))
    else:
        space = _box(steps, least, most, low, high)
    _check_inside(steps, space)
    return space


def _choices(first: NDArray[np.int64], last: NDArray[np.int64]) -> Any:
    """The space of choices that begin at these numbers and end at those, [n] each."""
    counts = last - first + 1
    if (counts > MOST_CHOICES).any():
        entry = int(counts.argmax())
        raise UserError(
            f"actions are whole numbers from {first[entry]} to {last[entry]}, which is too many to choose from: if "
            "they are amounts, give action_low and action_high"
        )
    if len(counts) == 1:
        return spaces.Discrete(int(counts[0]), start=int(first[0]))
    return spaces.MultiDiscrete(counts, start=first)


def _box(steps: Steps, least: NDArray[Any], most: NDArray[Any], low: Bound, high: Bound) -> Any:
    dtype = np.float64 if steps.actions.dtype == np.float64 else np.float32
    unit = 10.0 ** (np.floor(np.log10(np.where(most > least, most - least, 1))) - 1)
    # Rounded once more, for a multiple of 0.1 is none.
    ends = [np.round(edge(value / unit) * unit, 12) for edge, value in ((np.floor, least), (np.ceil, most))]
    bounds = [_given(name, bound, len(least)) for name, bound in (("action_low", low), ("action_high", high))]
    own = [
        np.where(most > least, end, least) if bound is None else bound for end, bound in zip(ends, bounds, strict=True)
    ]
    for least_one, largest in zip(*own, strict=True):
        if least_one > largest:
            raise UserError(
                f"the least action would be {least_one:g}, the largest {largest:g}: correct action_low or action_high"
            )
    box: Any = spaces.Box
    return box(*(each.astype(dtype) for each in own), dtype=dtype)


def _given(name: str, bound: Bound, count: int) -> NDArray[np.float64] | None:
    """A bound of each entry."""
    if bound is None:
        return None
    given = np.atleast_1d(np.asarray(bound, np.float64))
    if len(given) not in (1, count) or np.isnan(given).any():
        raise UserError(f"{name} has {len(given)} numbers, and actions have {count}: give one for all, or one for each")
    return np.broadcast_to(given, (count,))


def _extent(steps: Steps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least and the most value of each entry of actions."""
    width = steps.actions.shape[1]
    least, most = np.full(width, math.inf), np.full(width, -math.inf)
    for piece in steps.pieces():
        own = steps.actions[piece][~steps.final[piece]]
        if len(own):
            least, most = np.minimum(least, own.min(0)), np.maximum(most, own.max(0))
    return least, most


def _check_inside(steps: Steps, space: Any) -> None:
    spec = spec_of("the data", spaces.Box(0, 1, (1,)), space)
    if steps.actions.shape[1] != spec.action_dim:
        raise UserError(f"actions have {steps.actions.shape[1]} entries, those of the environment {spec.action_dim}")
    for piece in steps.pieces():
        own = steps.actions[piece].astype(np.float32)
        good = inside(own - spec.starts, spec)
        good |= steps.final[piece][:, None]
        if not good.all():
            row, entry = (int(each) for each in np.argwhere(~good)[0])
            place = steps.where("actions", piece.start + row, entry)
            why = outside(spec, entry)
            if not spec.discrete:
                ends = f"{spec.action_low[entry]:g} to {spec.action_high[entry]:g}"
                why = f"it is outside the bounds {ends}: clip it, or give wider ones"
            raise UserError(f"{place} holds {own[row, entry]:g}; {why}")
