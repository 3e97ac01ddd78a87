"""What the spaces of an environment or of a data set say of a task."""

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.errors import UserError
from awr_exp.layout import Entries, Entry, coarse
from awr_exp.machine import free_memory
from awr_exp.types import Spec

MOST_CHOICES = 1_000
"""Whole numbers beyond so many choices are amounts."""
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
    parts = list(_action_parts(owner, action, ()))
    entries, width = tuple(entry for entry, _ in parts), sum(entry.size for entry, _ in parts)
    _check_width(owner, "actions", action, sum(entry.width for entry in entries))
    chosen = [entry.name for entry in entries if entry.counts]
    if len(chosen) == len(entries):
        return Spec(obs_dim, width, action=entries, **seen)
    if chosen:
        amounts = ", ".join(entry.name for entry in entries if not entry.counts)
        raise UserError(
            f"{owner}: its actions mix choices ({', '.join(chosen)}) with numbers ({amounts}), for which there is no "
            "policy: wrap it, so that all are a Box, or all are choices"
        )
    vector = isinstance(action, spaces.Box) and len(action.shape) == 1
    low, high = _bounds_of(owner, action, [box for _, box in parts])
    seen |= {"action_low": tuple(low.tolist()), "action_high": tuple(high.tolist())}
    return Spec(obs_dim, width, action=() if vector else entries, **seen)


def _action_parts(owner: str, space: Any, path: tuple[str | int, ...]) -> Iterator[tuple[Entry, Any]]:
    """The parts of an action in their order, each with its space. Raises UserError for what is no number or choice."""
    match space:
        case spaces.Dict() | spaces.Tuple():
            if isinstance(space, spaces.Dict) and not all(isinstance(key, str) for key in space.spaces):
                raise UserError(f"{owner}: its actions have keys that are no text, which no file can keep: rename them")
            for key, part in sorted(parts_of(space), key=lambda each: each[0]):
                yield from _action_parts(owner, part, (*path, key))
        case spaces.MultiBinary():
            size = int(np.prod(space.shape))
            yield Entry(path, space.shape, (2,) * size, (0,) * size, str(space.dtype)), space
        case spaces.Box() if space.dtype.kind in "biu":
            yield _whole_numbers(owner, space, path), space
        case spaces.Box() | spaces.Discrete() | spaces.MultiDiscrete():
            yield from ((entry, space) for entry in _entries(owner, space, path))
        case _:
            where = f"{'/'.join(map(str, path))} of its actions is" if path else "its actions are"
            raise UserError(
                f"{owner}: {where} a {type(space).__name__}, for which there is no policy: wrap it, so that they are a "
                "Box, Discrete, MultiDiscrete or MultiBinary, or a Dict or Tuple of these"
            )


def _whole_numbers(owner: str, box: spaces.Box, path: tuple[str | int, ...]) -> Entry:
    """A Box of whole numbers as choices. Raises UserError where these are too many."""
    low, high = (bound.flatten().tolist() for bound in (box.low, box.high))
    counts = tuple(int(most) - int(least) + 1 for least, most in zip(low, high, strict=True))
    for number, count in enumerate(counts):
        if not 1 <= count <= MOST_CHOICES:
            raise UserError(
                f"{owner}: entry {number} of its actions is a whole number from {low[number]} to {high[number]}, which "
                f"is no choice of at most {MOST_CHOICES:,}: wrap it, so that it is a Box of floats, which you round"
            )
    return Entry(path, box.shape, counts, tuple(map(int, low)), str(box.dtype))


def _bounds_of(owner: str, action: Any, boxes: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bounds of actions that are boxes, laid out flat. Raises UserError where they leave nothing to learn."""
    low, high = (np.concatenate([side.flatten() for side in sides]) for sides in zip(*map(_bounds, boxes), strict=True))
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
    return low, high


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
    _check_width(owner, "observations", space, sum(entry.width for entry in entries))
    return () if isinstance(space, spaces.Box) and len(space.shape) == 1 else entries


def _check_width(owner: str, what: str, space: Any, width: int) -> None:
    """Raises UserError where there is nothing, or more than a memory takes."""
    if not width:
        raise UserError(f"{owner}: its {what} are {space}, which holds nothing")
    # The smallest network takes more than the rest.
    if (needed := 64 * width) > (free := free_memory()):
        raise UserError(
            f"{owner}: its {what} are {width} numbers, which take {needed / 1e9:.0f} GB of memory with any "
            f"network, and {free / 1e9:.1f} GB are free: use a space with fewer choices, or with numbers instead"
        )


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
            where = f"{'/'.join(map(str, path))} of its observations is" if path else "its observations are"
            kinds = "Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"
            raise UserError(f"{owner}: {where} a {type(space).__name__}, which has no flat form; use one of {kinds}")


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


def keeping_choices(env: gymnasium.Env) -> gymnasium.Env:
    """The environment, whose space says of choices that it shows several at once that they are choices.

    Of a stack of MultiDiscretes gymnasium makes a Box.
    """
    if type(env) is gymnasium.wrappers.FrameStackObservation:
        env.observation_space = _stacked(env.env.observation_space, env.stack_size)
    return env


def _stacked(space: Any, count: int) -> Any:
    match space:
        case spaces.Dict():
            return spaces.Dict({key: _stacked(part, count) for key, part in space.spaces.items()})
        case spaces.Tuple():
            return spaces.Tuple(_stacked(part, count) for part in space.spaces)
        case spaces.MultiDiscrete():
            counts, starts = (np.stack([each] * count) for each in (space.nvec, space.start))
            return spaces.MultiDiscrete(counts, space.dtype, start=starts)
        case _:
            return gymnasium.vector.utils.batch_space(space, count)


def unbounded(space: Any) -> Any:
    """The space of actions that are played as they are: its Boxes of floats have no bounds."""
    parts: dict[Any, Any] = {key: unbounded(part) for key, part in parts_of(space)}
    match space:
        case spaces.Dict():
            return spaces.Dict(parts)
        case spaces.Tuple():
            return spaces.Tuple(parts.values())
        case spaces.Box() if space.dtype.kind == "f":
            return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)
        case _:
            return space
