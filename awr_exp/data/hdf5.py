"""The HDF5 file of a Minari data set: read fast, and checked once."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from awr_exp import layout
from awr_exp.data import cache
from awr_exp.errors import UserError, first_line
from awr_exp.machine import free_memory
from awr_exp.types import Spec

METADATA = "metadata.json"
AGAIN = "delete the data set, and fetch it (dataset.download=true) or write it again"
"""What helps where it is damaged."""
EPISODE = re.compile(r"episode_\d{1,18}")
JPEG = b"\xff\xd8\xff"
"""How JPEG files begin, in which Minari keeps images unless it is told not to."""
BOUND_TOLERANCE = 1e-4
"""How far an action may lie outside its bounds, relative to their distance: float32 rounding, not a mistake."""

Array = NDArray[np.float32]


def read(id: str, file: Path, spec: Spec) -> tuple[cache.Flat, dict[Path, cache.State]]:
    """The whole of data set `id`, packed and checked, and the files that it is made of, as they are.

    Raises UserError, naming data set, episode and field, for what is damaged or not usable.
    """
    try:
        made_of = {path: cache.state(path) for path in (file, file.parent / METADATA)}
        with h5py.File(file) as source:
            made_of |= {path: cache.state(path) for path in _linked(id, source, file.parent)}
            packed, lengths, coarse = _read_episodes(id, source, spec)
        changed = [path for path, before in made_of.items() if cache.state(path) != before]
    except (OSError, RuntimeError) as error:
        raise UserError(f"data set '{id}': {file} {_trouble(error)}") from None
    if changed:
        raise UserError(f"data set '{id}' is being written: {changed[0]} has changed; wait until that is done")
    return (torch.from_numpy(packed), torch.from_numpy(lengths), spec, coarse), made_of


def _linked(id: str, source: h5py.File, folder: Path) -> list[Path]:
    """Other files that hold episodes, as of data sets that were combined."""
    found = set()
    for name in source:
        if source.id.links.get_info(os.fsencode(name)).type == h5py.h5l.TYPE_EXTERNAL:
            place = folder / source.get(name, getlink=True).filename
            try:
                # Of a pipe HDF5 would wait for the other end.
                if place.exists() and not place.is_file():
                    raise OSError(f"{place} is no file")
                found.add(Path(source[name].file.filename))
            except (KeyError, OSError) as error:
                raise UserError(
                    f"data set '{id}', {name}: it is kept in another file, which cannot be opened: {first_line(error)}"
                ) from None
    return sorted(found)


def _trouble(error: Exception) -> str:
    """What is wrong with an HDF5 file, and what helps."""
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


def _read_episodes(id: str, source: h5py.File, spec: Spec) -> tuple[Array, NDArray[np.int64], list[str]]:
    """Packed rows, lengths and the names of what float32 is too coarse for."""
    names = sorted(filter(EPISODE.fullmatch, source), key=lambda name: int(name[8:]))
    if not names:
        raise UserError(f"data set '{id}' has no episodes")
    groups = [source[name] for name in names]
    lengths = np.array([_length(id, name, group) for name, group in zip(names, groups, strict=True)])
    total = int(lengths.sum())
    rows, width = total + len(lengths), spec.obs_dim + spec.action_dim + 3
    if (needed := 4 * rows * width) > (free := free_memory()):
        raise UserError(
            f"data set '{id}' takes {needed / 1e9:.1f} GB of memory, {width} numbers a step, and {free / 1e9:.1f} "
            "GB are free: read it on a larger machine, or write it anew in parts"
        )
    packed = np.zeros((rows, width), np.float32)
    starts = (lengths + 1).cumsum() - (lengths + 1)
    # One array a field, read into directly: h5py's convenient reads cost several times as much an episode.
    column, coarse, known = 0, [], layout.column_names(spec.observation, spec.obs_dim)
    for entry in spec.observation or [layout.Entry((), (spec.obs_dim,))]:
        # As Minari calls the parts of a Tuple.
        steps = (f"_index_{step}" if isinstance(step, int) else step for step in entry.path)
        field = "/".join(("observations", *steps))
        # float32 does not have every whole number, and choices are told apart by theirs.
        dtype = np.float64 if entry.counts else np.float32
        stacked = _stack(id, names, groups, field, entry.shape, lengths + 1, dtype)
        if not entry.counts:
            coarse += [known[column + own] for own in _coarse(field, groups, stacked)]
        try:
            stacked = entry.columns(stacked.reshape(-1, *entry.shape))
        except ValueError as error:
            raise UserError(f"data set '{id}': {field}: {error}") from None
        packed[:, column : column + stacked.shape[1]] = stacked
        column += stacked.shape[1]
    at = np.arange(total) + np.repeat(np.arange(len(lengths)), lengths)
    action_shape = () if spec.discrete else (spec.action_dim,)
    for field, shape in (("actions", action_shape), ("rewards", ()), ("terminations", ()), ("truncations", ())):
        exact = _stack(id, names, groups, field, shape, lengths, np.float64)
        if field == "actions" and spec.discrete:
            exact -= spec.action_start
        if field == "rewards" and layout.coarse(exact).any():
            coarse.append("the reward")
        packed[at, column : column + exact.shape[1]] = exact
        column += exact.shape[1]
    _check_ends(id, names, packed, starts, lengths)
    _check_content(id, names, packed, starts, spec)
    return packed, lengths, coarse


def _check_ends(
    id: str, names: list[str], packed: Array, starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> None:
    """Raises UserError where an episode goes on after its end; marks one that does not say how it ends as truncated."""
    ends = starts + lengths - 1
    inner = np.ones(len(packed), bool)
    inner[ends] = False
    for column, field in ((-2, "terminations"), (-1, "truncations")):
        flags = packed[:, column]
        unclear = (flags != 0) & (flags != 1)
        wrong = unclear | (inner & (flags != 0))
        if wrong.any():
            row = int(wrong.argmax())
            episode = int(np.searchsorted(starts, row, "right") - 1)
            at = f"at step {row - starts[episode]} of {lengths[episode]}"
            said = f"holds {flags[row]:g} {at}; a flag is true or false"
            if not unclear[row]:
                said = f"is set {at}; an episode must end where it is, with its own last observation"
            raise UserError(f"data set '{id}', {names[episode]}: {field} {said}")
    packed[ends, -1] = 1 - packed[ends, -2]


def _length(id: str, name: str, group: Any) -> int:
    try:
        length = int(_inside(id, name, group, "rewards").shape[0])
    except (KeyError, AttributeError, IndexError, TypeError, ValueError):
        raise UserError(f"data set '{id}', {name}: rewards is missing or no list of numbers; {AGAIN}") from None
    if length == 0:
        raise UserError(f"data set '{id}', {name}: it has no steps; remove the episode")
    return length


def _stack(
    id: str,
    names: list[str],
    groups: list[Any],
    field: str,
    shape: tuple[int, ...],
    rows: NDArray[np.int64],
    dtype: type[np.floating],
) -> NDArray[Any]:
    """All episodes' `field` end to end, [sum of rows, width]."""
    width = int(np.prod(shape))
    out = np.empty((int(rows.sum()), width), dtype)
    start = 0
    for name, group, count in zip(names, groups, rows.tolist(), strict=True):
        try:
            data = _inside(id, name, group, field)
            found = data.shape or (0,)
        except (KeyError, AttributeError):
            raise UserError(f"data set '{id}', {name}: {field} is missing; {AGAIN}") from None
        if found[0] != count:
            raise UserError(
                f"data set '{id}', {name}: {field} has {found[0]} rows, {count} were expected: "
                "an episode of T steps has T + 1 observations and T of everything else"
            )
        if int(np.prod(found[1:])) != width or _turned(found[1:], shape):
            if _begins_with(data, JPEG):
                raise UserError(
                    f"data set '{id}', {name}: {field} holds JPEG images, not pixels: write the data set anew with "
                    "Minari's jpeg_encoding=False, or with numbers that a wrapper of the environment makes of images"
                )
            raise UserError(f"data set '{id}', {name}: {field} has shape {found[1:]}, its space has {shape}")
        try:
            data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, out[start : start + count].reshape(found))
        except (OSError, TypeError):
            if data.dtype.kind in "biuf":
                raise
            raise UserError(f"data set '{id}', {name}: {field} holds {data.dtype}, which are no numbers") from None
        start += count
    return out


def _turned(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether arrays of as many numbers have their axes in another order, as images that begin with their channels."""
    one, other = ([size for size in sizes if size != 1] for sizes in (found, shape))
    return min(len(one), len(other)) > 1 and one != other


def _inside(id: str, name: str, group: Any, field: str) -> Any:
    """An array of an episode. Raises UserError unless it is in the same file: another's changes would not be seen."""
    data, elsewhere = group, f"data set '{id}', {name}: {field} is kept in another file; write the data set anew"
    for step in field.split("/"):
        links, link = data.id.links, os.fsencode(step)
        if not links.exists(link):
            raise KeyError(step)
        if links.get_info(link).type != h5py.h5l.TYPE_HARD:
            raise UserError(elsewhere)
        data = data[step]
    plan = data.id.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count() > 0:
        raise UserError(elsewhere)
    return data


def _coarse(field: str, groups: list[Any], stacked: Array) -> list[int]:
    """The columns of a field whose values float32 can hardly tell apart, such as those of a clock.

    stacked: the whole field in float32, in which such a column may seem constant.
    """
    nearly = np.ptp(stacked, 0) < 10 * layout.COARSE * np.spacing(np.abs(stacked).max(0))
    suspects = np.flatnonzero(nearly & (np.abs(stacked).max(0) > layout.LARGE))
    if not suspects.size:
        return []
    some = [group[field] for group in groups[:: 1 + len(groups) // 100]]
    exact = np.concatenate([part[()].reshape(len(part), -1)[:, suspects].astype(np.float64) for part in some])
    return suspects[layout.coarse(exact)].tolist()


def _begins_with(data: Any, mark: bytes) -> bool:
    """Whether the first row of bytes, each of its own length or all of one, is of a kind of file."""
    kind = h5py.check_vlen_dtype(data.dtype) or data.dtype
    return kind == np.uint8 and bytes(np.ravel(data[0])[: len(mark)]) == mark


def _check_content(id: str, names: list[str], packed: Array, starts: NDArray[np.int64], spec: Spec) -> None:
    columns_of = {
        "observations": slice(0, spec.obs_dim),
        "actions": slice(spec.obs_dim, -3),
        "rewards": slice(-3, -2),
    }

    def refuse(field: str, wrong: NDArray[np.bool_], why: str) -> None:
        rows = np.flatnonzero(wrong.any(1))
        if rows.size:
            row = rows[0]
            episode = int(np.searchsorted(starts, row, "right") - 1)
            value = packed[row, columns_of[field]][wrong[row]][0] + (spec.action_start if field == "actions" else 0)
            where = f"{names[episode]}: {field} holds {value:g} at step {row - starts[episode]}"
            raise UserError(f"data set '{id}', {where}; {why}")

    for field, columns in columns_of.items():
        refuse(field, ~np.isfinite(packed[:, columns]), "repair or remove the episode")
    action = packed[:, columns_of["actions"]]
    transition = np.ones((len(packed), 1), bool)
    transition[[*(starts[1:] - 1), -1]] = False
    if spec.num_actions is not None:
        wrong = (action < 0) | (action >= spec.num_actions) | (action != action.round())
        last = spec.action_start + spec.num_actions - 1
        refuse("actions", wrong & transition, f"its space has the whole numbers from {spec.action_start} to {last}")
    else:
        low, high = np.array(spec.action_low, np.float32), np.array(spec.action_high, np.float32)
        span = high - low
        size = np.where(np.isfinite(span) & (span > 0), span, np.fmin(np.abs(low), np.abs(high)))
        slack = np.where(np.isfinite(size), BOUND_TOLERANCE * size, 0)
        wrong = (action < low - slack) | (action > high + slack)
        refuse(
            "actions",
            wrong & transition,
            "it is outside the bounds of its space: clip it, or give the data set's action_space infinite ones",
        )
