"""The HDF5 file of a Minari data set: read fast, and checked once."""

import math
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from awr_exp import layout
from awr_exp.data import cache, jpeg
from awr_exp.data.content import FIELDS, check
from awr_exp.data.damage import AGAIN, trouble
from awr_exp.data.packing import episode_returns
from awr_exp.data.room import Room
from awr_exp.data.schema import STORED, Schema
from awr_exp.errors import UserError, first_line
from awr_exp.types import Spec

METADATA = "metadata.json"
EPISODE = re.compile(r"episode_\d{1,18}")
NUMBERS = 2**22
"""Numbers of packed rows that are read at once."""
SOME = 100
"""The number of episodes, and of steps of each, that are looked at as exactly as the file has them."""


def read(id: str, file: Path, spec: Spec, room: Room) -> tuple[cache.Flat, dict[Path, cache.State]]:
    """The whole of data set `id`, packed and checked, in `room`, and the files that it is made of, as they are.

    Raises UserError, naming data set, episode and field, for what is damaged or not usable.
    """
    try:
        made_of = {path: cache.state(path) for path in (file, file.parent / METADATA)}
        with h5py.File(file) as source:
            made_of |= {path: cache.state(path) for path in _linked(id, source, file.parent)}
            flat = _Episodes.of(id, source).read(spec, room)
        changed = [path for path, before in made_of.items() if cache.state(path) != before]
    except (OSError, RuntimeError) as error:
        raise UserError(f"data set '{id}': {file} {trouble(error)}") from None
    if changed:
        raise UserError(f"data set '{id}' is being written: {changed[0]} has changed; wait until that is done")
    return flat, made_of


def _linked(id: str, source: h5py.File, folder: Path) -> list[Path]:
    """The other files that hold episodes, as those of combined data sets do."""
    found = set()
    for name in source:
        if source.id.links.get_info(os.fsencode(name)).type == h5py.h5l.TYPE_EXTERNAL:
            place = folder / source.get(name, getlink=True).filename
            try:
                # HDF5 would wait for the other end of a pipe.
                if place.exists() and not place.is_file():
                    raise OSError(f"{place} is no file")
                found.add(Path(source[name].file.filename))
            except (KeyError, OSError) as error:
                raise UserError(
                    f"data set '{id}', {name}: it is kept in another file, which cannot be opened: {first_line(error)}"
                ) from None
    return sorted(found)


class _Episodes:
    """Episodes of data set `id`: their names, groups in the file, and lengths [E]; None: these are looked up."""

    def __init__(self, id: str, names: list[str], groups: list[Any], lengths: NDArray[np.int64] | None = None) -> None:
        self.id, self.names, self.groups = id, names, groups
        found = [self._length(*each) for each in zip(names, groups, strict=True)] if lengths is None else lengths
        self.lengths = np.asarray(found, np.int64)
        self.final = (self.lengths + 1).cumsum() - 1
        """The packed row of each final observation."""

    @classmethod
    def of(cls, id: str, source: h5py.File) -> "_Episodes":
        """All episodes of a file."""
        names = sorted(filter(EPISODE.fullmatch, source), key=lambda name: int(name[8:]))
        if not names:
            raise UserError(f"data set '{id}' has no episodes")
        return cls(id, names, [source[name] for name in names])

    def _parts(self, rows: int) -> Iterator["_Episodes"]:
        """These in order, in parts of at most so many packed rows, or of a single episode."""
        first = 0
        while first < len(self.names):
            before = self.final[first - 1] + 1 if first else 0
            end = max(first + 1, int(np.searchsorted(self.final, before + rows)))
            yield _Episodes(self.id, self.names[first:end], self.groups[first:end], self.lengths[first:end])
            first = end

    def error(self, name: str, why: str) -> UserError:
        """What is said of an episode that cannot be used."""
        return UserError(f"data set '{self.id}', {name}: {why}")

    def read(self, spec: Spec, room: Room) -> cache.Flat:
        """Read all episodes of a task into packed rows, and check them."""
        width = Schema(spec, STORED).width
        room.begin(int(self.final[-1]) + 1, width)
        returns, coarse = [], False
        for part in self._parts(max(1, NUMBERS // width)):
            packed, reward = part._packed(spec)
            coarse = coarse or bool(layout.coarse(reward).any())
            returns.append(episode_returns(packed, part.lengths, spec))
            room.add(packed)
        names = [*self._coarse_observations(spec), *(["the reward"] if coarse else [])]
        return cache.Flat(room.all(), torch.from_numpy(self.lengths), np.concatenate(returns), spec, names)

    def _packed(self, spec: Spec) -> tuple[torch.Tensor, NDArray[np.float64]]:
        """The packed rows of these episodes, checked, and their rewards [n, 1] as they are in the file."""
        schema, rows = Schema(spec, STORED), int(self.final[-1]) + 1
        packed = torch.zeros(rows, schema.width)
        self._read_observations(spec, schema, packed)
        at = np.delete(np.arange(rows), self.final)
        for name in STORED[1:]:
            exact = self._actions(spec) if name == "action" else self._stack(FIELDS[name], (), 0, np.float64)
            if name == "reward":
                reward = exact
            schema.view(packed, name).numpy()[at] = exact
        check(self.id, self.names, packed, self.lengths, spec)
        return packed, reward

    def _actions(self, spec: Spec) -> NDArray[np.float64]:
        """All actions, laid out flat, [rows, action_dim], of which choices count from 0."""
        parts = spec.action or (layout.Entry((), spec.action_shape),)
        stacked = [self._stack(_field("actions", entry), entry.shape, 0, np.float64) for entry in parts]
        flat: NDArray[np.float64] = np.concatenate(stacked, 1)
        return flat - spec.starts if spec.discrete else flat

    def _read_observations(self, spec: Spec, schema: Schema, packed: torch.Tensor) -> None:
        """Read observations into packed rows."""
        for entry in spec.entries:
            field = _field("observations", entry)
            # float32 does not have every whole number, and choices are told apart by theirs.
            stacked = self._stack(field, entry.shape, 1, np.float64 if entry.counts else np.dtype(entry.kept))
            if entry.counts:
                try:
                    stacked = entry.columns(stacked.reshape(-1, *entry.shape))
                except ValueError:
                    raise self._no_choice(field, entry, stacked) from None
            schema.view(packed, "obs", *entry.path).numpy()[:] = stacked

    def _no_choice(self, field: str, entry: layout.Entry, values: NDArray[Any]) -> UserError:
        """What is said of the first of values [rows, size] that is no choice of their space: its episode and step."""
        row, column = np.argwhere(~entry.has(values))[0].tolist()
        episode = int(np.searchsorted(self.final, row))
        step = row - int(self.final[episode]) + int(self.lengths[episode])
        said = f"{field} holds {values[row, column]:g} at step {step}; its space has {entry.choices}"
        return self.error(self.names[episode], said)

    def _coarse_observations(self, spec: Spec) -> Iterator[str]:
        """The names of what float32 is too coarse for."""
        known = iter(layout.column_names(spec.observation, spec.obs_dim))
        for entry in spec.entries:
            own = list(islice(known, entry.width))
            if not entry.counts and entry.kept == "float32":
                yield from (own[column] for column in self._coarse(_field("observations", entry)))

    def _length(self, name: str, group: Any) -> int:
        """The number of steps of an episode."""
        try:
            length = int(self._inside(name, group, "rewards").shape[0])
        except (KeyError, AttributeError, IndexError, TypeError, ValueError):
            raise self.error(name, f"rewards is missing or no list of numbers; {AGAIN}") from None
        if length == 0:
            raise self.error(name, "it has no steps; remove the episode")
        return length

    def _stack(self, field: str, shape: tuple[int, ...], more: int, dtype: Any) -> NDArray[Any]:
        """All episodes' `field` end to end, [rows, width], of which each has `more` rows than it has steps."""
        width, start = math.prod(shape), 0
        out = np.empty((int((self.lengths + more).sum()), width), dtype)
        for name, group, count in zip(self.names, self.groups, (self.lengths + more).tolist(), strict=True):
            try:
                data = self._inside(name, group, field)
                found = data.shape or (0,)
            except (KeyError, AttributeError):
                raise self.error(name, f"{field} is missing; {AGAIN}") from None
            if found[0] != count:
                raise self.error(
                    name,
                    f"{field} has {found[0]} rows, {count} were expected: an episode of T steps has T + 1 observations "
                    "and T of everything else",
                )
            held = out[start : start + count]
            start += count
            if dtype == np.uint8 and len(shape) > 1 and jpeg.holds(data):
                try:
                    jpeg.decode(data, held.reshape(count, *shape))
                except ValueError as error:
                    raise self.error(name, f"{field}: {error}") from None
                continue
            if math.prod(found[1:]) != width or _turned(found[1:], shape):
                raise self.error(name, f"{field} has shape {found[1:]}, its space has {shape}")
            held = held.reshape(found)
            # HDF5 would make bytes of any number.
            exact = held if dtype != np.uint8 or data.dtype == dtype else np.empty(found)
            try:
                data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, exact)
            except (OSError, TypeError):
                if data.dtype.kind in "biuf":
                    raise
                raise self.error(name, f"{field} holds {data.dtype}, which are no numbers") from None
            if exact is not held:
                if not ((exact >= 0) & (exact < 256) & (exact == exact.round())).all():
                    raise self.error(name, f"{field} holds numbers that its space, of uint8, has not")
                held[:] = exact
        return out

    def _inside(self, name: str, group: Any, field: str) -> Any:
        """An array of an episode. Raises UserError unless it is in this file: another's changes would not be seen."""
        data, elsewhere = group, self.error(name, f"{field} is kept in another file; write the data set anew")
        for step in field.split("/"):
            links, link = data.id.links, os.fsencode(step)
            if not links.exists(link):
                raise KeyError(step)
            if links.get_info(link).type != h5py.h5l.TYPE_HARD:
                raise elsewhere
            data = data[step]
        plan = data.id.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count() > 0:
            raise elsewhere
        return data

    def _coarse(self, field: str) -> list[int]:
        """The columns of a field whose values float32 can hardly tell apart, such as those of a clock."""
        some = [group[field][:SOME] for group in self.groups[:: 1 + len(self.groups) // SOME]]
        exact = np.concatenate([part.reshape(len(part), -1).astype(np.float64) for part in some])
        return np.flatnonzero(layout.coarse(exact)).tolist()


def _field(whole: str, entry: layout.Entry) -> str:
    """Where a part of observations or actions lies in an episode: as Minari calls the parts of a Tuple."""
    return "/".join((whole, *(f"_index_{step}" if isinstance(step, int) else step for step in entry.path)))


def _turned(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether arrays of as many numbers have their axes in another order, as images that begin with their channels."""
    one, other = ([size for size in sizes if size != 1] for sizes in (found, shape))
    return min(len(one), len(other)) > 1 and one != other
