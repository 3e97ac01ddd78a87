"""The HDF5 file of a Minari data set: read fast, and checked once."""

import errno
import math
import os
import re
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
from awr_exp.data.schema import STORED, Schema
from awr_exp.errors import UserError, first_line
from awr_exp.machine import free_memory
from awr_exp.types import Spec

METADATA = "metadata.json"
AGAIN = "delete the data set, and fetch it (dataset.download=true) or write it again"
"""The advice where a data set is damaged."""
EPISODE = re.compile(r"episode_\d{1,18}")
SOME = 100
"""The number of episodes, and of steps of each, that are looked at as exactly as the file has them."""


def read(id: str, file: Path, spec: Spec) -> tuple[cache.Flat, dict[Path, cache.State]]:
    """The whole of data set `id`, packed and checked, and the files that it is made of, as they are.

    Raises UserError, naming data set, episode and field, for what is damaged or not usable.
    """
    try:
        made_of = {path: cache.state(path) for path in (file, file.parent / METADATA)}
        with h5py.File(file) as source:
            made_of |= {path: cache.state(path) for path in _linked(id, source, file.parent)}
            flat = _Episodes(id, source).read(spec)
        changed = [path for path, before in made_of.items() if cache.state(path) != before]
    except (OSError, RuntimeError) as error:
        raise UserError(f"data set '{id}': {file} {_trouble(error)}") from None
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


def _trouble(error: Exception) -> str:
    """A text that says what is wrong with an HDF5 file, and what helps."""
    said, number = " ".join(str(error).split()), getattr(error, "errno", None)
    if "lock file" in said and number in (errno.EAGAIN, errno.EACCES):
        return "is locked by another program, which may be writing it: wait until that is done"
    if "lock file" in said:
        return f"cannot be locked ({os.strerror(number or 0)}), as on some network drives: HDF5_USE_FILE_LOCKING=FALSE"
    if "already open for write" in said:
        return "is open for writing: wait until that is done, or run h5clear -s on it if what wrote it was killed"
    if "version number" in said:
        return f"is of a newer HDF5 than {h5py.version.hdf5_version}, or damaged ({said}): update h5py, or {AGAIN}"
    if "filter" in said and ("not registered" in said or "not available" in said or "open directory" in said):
        return f"is compressed in a way that is not installed here ({said}): write it anew without, or install that"
    if number:
        return f"cannot be read: {os.strerror(number)}"
    return f"is damaged ({first_line(error)}); {AGAIN}"


class _Episodes:
    """The episodes of data set `id`: their names, groups in the file, and lengths [E]."""

    def __init__(self, id: str, source: h5py.File) -> None:
        self.id, self.names = id, sorted(filter(EPISODE.fullmatch, source), key=lambda name: int(name[8:]))
        if not self.names:
            raise UserError(f"data set '{id}' has no episodes")
        self.groups = [source[name] for name in self.names]
        self.lengths = np.array([self._length(*each) for each in zip(self.names, self.groups, strict=True)])
        self.final = (self.lengths + 1).cumsum() - 1
        """The packed row of each final observation."""

    def error(self, name: str, why: str) -> UserError:
        """What is said of an episode that cannot be used."""
        return UserError(f"data set '{self.id}', {name}: {why}")

    def read(self, spec: Spec) -> cache.Flat:
        """Read all episodes of a task into packed rows, and check them."""
        schema, rows = Schema(spec, STORED), int(self.final[-1]) + 1
        if (needed := 4 * rows * schema.width) > (free := free_memory()):
            numbers = spec.obs_dim + spec.action_dim + 3
            raise UserError(
                f"data set '{self.id}' takes {needed / 1e9:.1f} GB of memory, {numbers} numbers a step, and "
                f"{free / 1e9:.1f} GB are free: read it on a larger machine, or write it anew in parts"
            )
        packed = torch.zeros(rows, schema.width)
        coarse = self._read_observations(spec, schema, packed)
        at = np.delete(np.arange(rows), self.final)
        for name in STORED[1:]:
            exact = self._actions(spec) if name == "action" else self._stack(FIELDS[name], (), 0, np.float64)
            if name == "reward" and layout.coarse(exact).any():
                coarse.append("the reward")
            schema.view(packed, name).numpy()[at] = exact
        check(self.id, self.names, packed, self.lengths, spec)
        return packed, torch.from_numpy(self.lengths), spec, coarse

    def _actions(self, spec: Spec) -> NDArray[np.float64]:
        """All actions, laid out flat, [rows, action_dim], of which choices count from 0."""
        parts = spec.action or (layout.Entry((), spec.action_shape),)
        stacked = [self._stack(_field("actions", entry), entry.shape, 0, np.float64) for entry in parts]
        flat: NDArray[np.float64] = np.concatenate(stacked, 1)
        return flat - spec.starts if spec.discrete else flat

    def _read_observations(self, spec: Spec, schema: Schema, packed: torch.Tensor) -> list[str]:
        """Read observations into packed rows; the names of what float32 is too coarse for."""
        known, coarse = iter(layout.column_names(spec.observation, spec.obs_dim)), []
        for entry in spec.entries:
            field, own = _field("observations", entry), list(islice(known, entry.width))
            # float32 does not have every whole number, and choices are told apart by theirs.
            stacked = self._stack(field, entry.shape, 1, np.float64 if entry.counts else np.dtype(entry.kept))
            if entry.counts:
                try:
                    stacked = entry.columns(stacked.reshape(-1, *entry.shape))
                except ValueError as error:
                    raise UserError(f"data set '{self.id}': {field}: {error}") from None
            elif entry.kept == "float32":
                coarse += [own[column] for column in self._coarse(field)]
            schema.view(packed, "obs", *entry.path).numpy()[:] = stacked
        return coarse

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
