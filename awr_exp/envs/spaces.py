"""What the spaces of an environment or of a data set say of a task."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.errors import UserError
from awr_exp.layout import Entries, Entry, coarse
from awr_exp.machine import free_memory
from awr_exp.types import Spec

UNBOUNDED = 1e18
"""A bound of an action, either way from 0, that is none: from here on squares leave float32. Environments without
bounds often write float32's largest number."""


def spec_of(owner: str, observation: Any, action: Any) -> Spec:
    """The shapes and bounds of a task of `owner`. Raises UserError for a space of another kind than ours."""
    entries = entries_of(owner, observation)
    obs_dim = sum(entry.width for entry in entries) if entries else observation.shape[0]
    seen: dict[str, Any] = {"observation": entries} if entries else {"dtype": str(observation.dtype)}
    if isinstance(action, spaces.Discrete):
        return Spec(obs_dim, num_actions=int(action.n), action_start=int(action.start), **seen)
    if not isinstance(action, spaces.Box) or len(action.shape) != 1 or not np.issubdtype(action.dtype, np.floating):
        raise UserError(f"{owner}: its actions are {action}; use a Discrete or a one-dimensional Box of floats")
    low, high = _bounds(action)
    if (low > high).any():
        entry = int((low > high).argmax())
        raise UserError(f"{owner}: entry {entry} of its actions is from {low[entry]:g} to {high[entry]:g}: swap them")
    if not (low < high).any():
        raise UserError(f"{owner}: its actions are {action}, which leaves nothing to choose")
    with np.errstate(invalid="ignore", over="ignore"):
        near = (low < high) & coarse(np.stack([low, high]))
    if near.any():
        entry = int(near.argmax())
        raise UserError(
            f"{owner}: entry {entry} of its actions is from {low[entry]:.12g} to {high[entry]:.12g}, between which "
            "float32 has hardly any numbers: subtract a constant from it in the data and in the environment"
        )
    return Spec(obs_dim, len(low), None, tuple(low.tolist()), tuple(high.tolist()), **seen)


def _bounds(box: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bounds of actions, infinite where they are so in effect."""
    none = min(UNBOUNDED, float(np.finfo(box.low.dtype).max))  # type: ignore[type-var]
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    return np.where(low <= -none, -np.inf, low), np.where(high >= none, np.inf, high)


def entries_of(owner: str, space: Any) -> Entries:
    """Where the parts of an observation come from, in their order; none for a vector.

    Raises UserError for a space that has no flat form, or one that no memory takes.
    """
    entries = tuple(_entries(owner, canonical(space), ()))
    width = sum(entry.width for entry in entries)
    if not width:
        raise UserError(f"{owner}: its observations are {space}, which holds nothing")
    # The smallest network takes more than the rest.
    if (needed := 64 * width) > (free := free_memory()):
        raise UserError(
            f"{owner}: its observations are {width} numbers, which take {needed / 1e9:.0f} GB of memory with any "
            f"network, and {free / 1e9:.1f} GB are free: use a space with fewer choices, or with numbers instead"
        )
    return () if isinstance(space, spaces.Box) and len(space.shape) == 1 else entries


def _entries(owner: str, space: Any, path: tuple[str | int, ...]) -> Iterator[Entry]:
    match space:
        case spaces.Dict() | spaces.Tuple():
            for key, part in parts_of(space):
                yield from _entries(owner, part, (*path, key))
        case spaces.Box() | spaces.MultiBinary():
            yield Entry(path, space.shape, dtype=str(space.dtype))
        case spaces.Discrete():
            yield Entry(path, (), (int(space.n),), (int(space.start),), str(space.dtype))
        case spaces.MultiDiscrete():
            counts, starts = (tuple(each.flatten().tolist()) for each in (space.nvec, space.start))
            yield Entry(path, space.shape, counts, starts, str(space.dtype))
        case _:
            where = "/".join(map(str, path)) or "the observation"
            kinds = "Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"
            raise UserError(f"{owner}: {where} is a {type(space).__name__}, which has no flat form; use one of {kinds}")


def parts_of(space: Any) -> list[tuple[str | int, Any]]:
    """The parts of a Dict with their keys as text, or of a Tuple with their numbers; any other space has none."""
    if isinstance(space, spaces.Dict):
        return [(str(key), part) for key, part in space.spaces.items()]
    return list(enumerate(space.spaces)) if isinstance(space, spaces.Tuple) else []


def canonical(space: Any) -> Any:
    """The space with all Dicts in the order of their keys, which are text, as a file will say it."""
    parts: dict[Any, Any] = {key: canonical(part) for key, part in parts_of(space)}
    if isinstance(space, spaces.Dict):
        return spaces.Dict(sorted(parts.items()))
    return spaces.Tuple(parts.values()) if isinstance(space, spaces.Tuple) else space
