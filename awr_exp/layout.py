"""How an observation or an action of any structure lies in a vector: in one order everywhere, whoever wrote the space.

Keys of a Dict come in alphabetical order, for a space that is kept in a file comes back in that, whatever it was
before. Nothing here imports torch or gymnasium: workers and policies do without.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 5
"""Rows and columns from which on a matrix of numbers is an image."""


@dataclass(frozen=True)
class Entry:
    """A part of an observation, or of an action, that has other ones beside it or is no vector.

    path: the keys of Dicts, as text, and the numbers in Tuples that lead to it; shape: of its values; dtype: of the
    environment's own values. Where values are choices, each choice of an observation is a column, and an action has the
    number of the one that is chosen: counts: how many choices each value has; starts: the first of these.
    """

    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    counts: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    dtype: str = field(default="float32", compare=False)

    @property
    def name(self) -> str:
        return "/".join(map(str, self.path)) or "the observation"

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """How many columns it takes."""
        return sum(self.counts) if self.counts else self.size

    @property
    def is_image(self) -> bool:
        """Whether it can be looked at: numbers on three axes, or more in a stack of images; bytes may be on two."""
        axes = 2 if self.dtype == "uint8" else 3
        return not self.counts and axes <= len(self.shape) <= 5 and sorted(self.shape)[-2] >= SMALLEST

    def stacked(self, count: int) -> "Entry":
        """What it is of so many time steps, the last of which is now, as gymnasium's FrameStackObservation has it."""
        return replace(self, shape=(count, *self.shape), counts=self.counts * count, starts=self.starts * count)

    @property
    def single(self) -> "Entry":
        """What `stacked` makes one of several time steps of."""
        count, *shape = self.shape
        choices = len(self.counts) // count
        return replace(self, shape=tuple(shape), counts=self.counts[:choices], starts=self.starts[:choices])

    @property
    def kept(self) -> str:
        """The dtype that its columns are kept in: bytes, as of images, stay bytes."""
        return "uint8" if self.dtype == "uint8" and not self.counts else "float32"

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Entry":
        """Make one from what `dataclasses.asdict` is after a round trip through JSON, which turns tuples into lists.

        Raises ValueError or TypeError for what is no entry.
        """
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        entry = cls(**fields)
        sizes = (*entry.shape, *entry.counts)
        if not all(type(size) is int and size >= 0 for size in sizes) or math.prod(sizes) > MOST:
            raise ValueError("it has a part whose sizes are no whole numbers")
        if not all(type(start) is int for start in entry.starts) or len(entry.starts) != len(entry.counts):
            raise ValueError("it has a part whose choices begin at no whole numbers")
        if not all(type(step) in (str, int) for step in entry.path) or np.dtype(entry.dtype).kind not in "biuf":
            raise ValueError("it has a part of no name, or not of numbers")
        return entry

    def columns(self, values: Any) -> NDArray[np.float32]:
        """Turn values [..., *shape] into columns [..., width]. Raises ValueError for other shapes and no choices."""
        array = np.asarray(values)
        lead = array.ndim - len(self.shape)
        if lead < 0 or array.shape[lead:] != self.shape:
            raise ValueError(f"{self.name} has the shape {array.shape}, its space {self.shape}")
        flat = array.reshape(*array.shape[:lead], self.size)
        if not self.counts:
            return np.asarray(flat, np.float32)
        index = flat - np.array(self.starts)
        if not self._are_choices(index).all():
            raise ValueError(f"{self.name} is none of its {self.choices}")
        out = np.zeros((*index.shape[:-1], self.width), np.float32)
        before = np.cumsum(self.counts) - self.counts
        np.put_along_axis(out, (index + before).astype(np.int64), 1, -1)
        return out

    def has(self, flat: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether each of values [..., size] is one of its choices."""
        return self._are_choices(flat - np.array(self.starts))

    def _are_choices(self, index: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether numbers [..., size] that count from 0 are choices."""
        found: NDArray[np.bool_] = (index >= 0) & (index < np.array(self.counts)) & (index == np.round(index))
        return found

    @property
    def choices(self) -> str:
        """How many choices there are of each value, in words."""
        first = f" that begin at {', '.join(map(str, self.starts))}" if any(self.starts) else ""
        return f"{' x '.join(map(str, self.counts))} choices{first}"

    def values(self, columns: NDArray[np.float32]) -> NDArray[Any]:
        """Turn columns back into values, as `shaped` has them."""
        if not self.counts:
            return self.shaped(columns)
        ends = np.cumsum(self.counts)[:-1]
        index = np.stack([part.argmax(-1) for part in np.split(columns, ends, -1)], -1)
        return self.shaped(index + np.array(self.starts))

    def shaped(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Values laid out flat, [..., size], in the environment's own shape and dtype; a single choice is no array."""
        values: NDArray[Any] = numbers.reshape((*numbers.shape[:-1], *self.shape)).astype(self.dtype)
        return values if values.dtype.kind == "f" else values[()]


LISTED = 12
"""Sizes of a part that a sentence names."""
LARGE, COARSE = 1000, 100
"""A column has a large mean and a small spread if it gets above the one, and its deviation is less than the other times
the distance of neighbours in float32."""

MOST = 1 << 40
"""Numbers in one part that no machine holds."""

Entries = tuple[Entry, ...]
"""The parts of an observation or an action in their order; there are none where it is a vector already."""


def flatten(entries: Entries, obs: Any) -> NDArray[np.float32]:
    """Turn an observation, or a batch of them along its parts' first axes, into columns [..., width].

    Raises ValueError where it has another structure.
    """
    parts = [entry.columns(_part(obs, entry)) for entry in entries]
    leads = {part.shape[:-1] for part in parts}
    if len(leads) > 1:
        raise ValueError(f"its entries are of batches of different shapes: {', '.join(map(str, sorted(leads)))}")
    return np.concatenate(parts, -1)


def _part(obs: Any, entry: Entry) -> Any:
    for depth, step in enumerate(entry.path):
        known: dict[str | int, Any] = dict(enumerate(obs)) if isinstance(obs, tuple | list) else {}
        if isinstance(obs, Mapping):
            known = {str(key): value for key, value in obs.items()}
        if step not in known:
            raise ValueError(f"it has no {'/'.join(map(str, entry.path[: depth + 1]))}")
        obs = known[step]
    return obs


def unflatten(entries: Entries, columns: NDArray[np.float32]) -> Any:
    """Turn columns back into an observation, with dicts for Dicts and tuples for Tuples."""
    ends = np.cumsum([entry.width for entry in entries])[:-1]
    parts = [(entry.path, entry.values(own)) for entry, own in zip(entries, np.split(columns, ends, -1), strict=True)]
    return _nested(parts)


def structured(entries: Entries, numbers: NDArray[Any]) -> Any:
    """Turn an action laid out flat, [..., n] with a number a choice, into dicts for Dicts and tuples for Tuples.

    Choices are in the environment's own numbers. There is nothing to do without entries.
    """
    if not entries:
        return numbers
    ends = np.cumsum([entry.size for entry in entries])[:-1]
    parts = [(entry.path, entry.shaped(own)) for entry, own in zip(entries, np.split(numbers, ends, -1), strict=True)]
    return _nested(parts)


def _nested(parts: Sequence[tuple[tuple[str | int, ...], Any]]) -> Any:
    if not parts[0][0]:
        return parts[0][1]
    below: dict[str | int, list[tuple[tuple[str | int, ...], Any]]] = {}
    for (first, *rest), value in parts:
        below.setdefault(first, []).append((tuple(rest), value))
    own = {step: _nested(inner) for step, inner in below.items()}
    return tuple(own.values()) if isinstance(parts[0][0][0], int) else own


def described(entries: Entries) -> str:
    """The parts by name, if they are parts, with their shapes, or with how many choices there are of each value."""
    return ", ".join(f"{entry.name} {sizes(entry)}" if entry.path else sizes(entry) for entry in entries)


def sizes(entry: Entry) -> str:
    """The shape of a part, or how many choices there are of each of its values."""
    own = entry.counts or entry.shape
    if len(own) > LISTED and len(set(own)) == 1:
        return f"[{own[0]}] * {len(own)}"
    more = ", ..." if len(own) > LISTED else ""
    return f"[{', '.join(map(str, own[:LISTED]))}{more}]"


def column_names(entries: Entries, width: int) -> list[str]:
    """What each of an observation's columns is called."""
    if not entries:
        return [f"entry {column} of the observations" for column in range(width)]
    return [
        entry.name if entry.width == 1 else f"{entry.name}[{column}]"
        for entry in entries
        for column in range(entry.width)
    ]


def coarse(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether float32 can hardly tell the values of a column apart, as those of a clock: [W] of columns [N, W].

    columns: as exact as they are known.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        largest = np.abs(columns).max(0)
        step = np.spacing(largest.astype(np.float32))
        return (largest > LARGE) & (np.ptp(columns, 0) > 0) & (columns.std(0) < COARSE * step)


def about_coarse(names: list[str], where: str) -> str:
    """The warning of columns that are coarse; where: in what a constant can be subtracted from them."""
    varies, them = ("varies", "it") if len(names) == 1 else ("vary", "them")
    return (
        f"{', '.join(names)} {varies} little around a large mean, and float32 can hardly tell the values apart: "
        f"subtract a constant from {them} {where}"
    )
