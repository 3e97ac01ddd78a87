"""Minari data sets in: found, read fast, checked once, and kept as a flat cache beside the file."""

import difflib
import errno
import hashlib
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data import cache
from awr_exp.data.transitions import DataInfo, Transitions, select
from awr_exp.envs import source as env_source
from awr_exp.envs.make import spec_of
from awr_exp.errors import UserError, first_line, named
from awr_exp.types import Spec

log = logging.getLogger(__name__)

ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")
EPISODE = re.compile(r"episode_\d{1,18}")
METADATA = "metadata.json"
HUB = ("huggingface.co", 443)
BOUND_TOLERANCE = 1e-4
"""How far an action may lie outside its bounds, relative to their distance: float32 rounding, not a mistake."""

Array = NDArray[np.float32]


def load(
    id: str,
    top_percent: float | None = None,
    reward_scale: float = 1.0,
    max_transitions: int | None = None,
    download: bool = False,
    device: torch.device | str = "cpu",
) -> Transitions:
    """The data set `id` of the local Minari root, or of the hub if `download` is set.

    See `select` for the options. Raises UserError, naming data set, episode and field, for what is missing,
    damaged or not usable.
    """
    folder = _find(id, download)
    file, metadata = folder / "main_data.hdf5", _metadata(id, folder)
    observation, action = _spaces(id, metadata)
    flat = cache.read(folder, [file, folder / METADATA])
    if flat is None:
        flat, made_of = _read(id, file, metadata, observation, action)
        cache.write(folder, made_of, flat)
    packed, lengths, spec = flat
    info = DataInfo(
        id=id,
        episode_returns=_returns(packed, lengths),
        transitions=int(lengths.sum()),
        fingerprint=f"{id}:{_digest(packed, lengths)}",
        env_spec=_env_source(id, metadata, "env_spec"),
        eval_env_spec=_env_source(id, metadata, "eval_env_spec"),
        ref_min_score=_score(id, metadata, "ref_min_score"),
        ref_max_score=_score(id, metadata, "ref_max_score"),
        observation_space=observation,
        action_space=action,
    )
    return select(packed, lengths, spec, info, top_percent, reward_scale, max_transitions).to(device)


def root() -> Path:
    """Where Minari keeps its data sets."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def _find(id: str, download: bool) -> Path:
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise UserError(f"dataset.id '{id}' is not a Minari id: it looks like mujoco/halfcheetah/medium-v0")
    folder = root() / id / "data"
    try:
        if download and not os.path.lexists(root() / id):
            _download(id)
        for place in (root(), folder):
            if place.exists() and not place.is_dir():
                raise UserError(f"data set '{id}' cannot be read: {place} is a file where a folder should be")
        if os.listdir(folder):
            return folder
        raise FileNotFoundError
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UserError(f"data set '{id}' cannot be read: {folder}: {error.strerror or error}") from None
    if os.path.lexists(root() / id):
        raise UserError(f"data set '{id}' is not whole: {folder} is missing or empty; {_again(id)}")
    local = sorted(str(path.parent.parent.relative_to(root())) for path in root().glob(f"**/data/{METADATA}"))
    near = difflib.get_close_matches(id, local, 3, 0.5) or local[:3]
    hint = f"here are {', '.join(near)}; " if near else ""
    raise UserError(f"data set '{id}' is not in {root()}: {hint}dataset.download=true fetches it from the hub")


def _again(id: str) -> str:
    return f"delete {root() / id}, and fetch it (dataset.download=true) or write it again"


def _download(id: str) -> None:
    try:
        # The hub's own client retries for half a minute before it says that there is no network.
        socket.create_connection(HUB, timeout=3).close()
    except OSError as error:
        raise UserError(f"data set '{id}' cannot be downloaded: no connection to {HUB[0]} ({error})") from None
    import minari

    try:
        minari.download_dataset(id)
    except ImportError as error:
        raise UserError(f"downloading needs a package: pip install 'awr-exp[hub]' ({error})") from None
    except Exception as error:
        raise UserError(f"data set '{id}' cannot be downloaded: {first_line(error)}") from None


def _metadata(id: str, folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        old = " (Minari kept data so before 0.5: save it anew with a newer one)" if any(folder.glob("*.hdf5")) else ""
        raise UserError(f"data set '{id}' has no {path}{old}; {_again(id)}") from None
    except OSError as error:
        raise UserError(f"data set '{id}': {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"data set '{id}': {path} is no JSON in UTF-8 ({first_line(error)}); {_again(id)}") from None
    if not isinstance(content, dict) or not content.keys() >= {"observation_space", "action_space"}:
        raise UserError(f"data set '{id}': {path} names no observation_space or action_space; {_again(id)}")
    return content


def _spaces(id: str, metadata: dict[str, Any]) -> tuple[Any, Any]:
    from minari.serialization import deserialize_space

    try:
        observation, action = (deserialize_space(metadata[f"{name}_space"]) for name in ("observation", "action"))
    except Exception as error:
        reason = " ".join(named(error).split())
        raise UserError(f"data set '{id}': a space in its {METADATA} cannot be read: {reason:.200}") from None
    return observation, action


def _env_source(id: str, metadata: dict[str, Any], field: str) -> env_source.EnvSource | None:
    # Only the registered id is taken: an entry point found in a file would be somebody else's code.
    if metadata.get(field) is None:
        return None
    try:
        return env_source.parse(metadata[field])
    except (ValueError, RecursionError) as error:
        log.warning("data set '%s': its %s is left out, which cannot be read: %s", id, field, first_line(error))
        return None


def _score(id: str, metadata: dict[str, Any], field: str) -> float | None:
    value = metadata.get(field)
    if value is None or (type(value) in (int, float) and abs(value) < 1e300):
        return value
    log.warning("data set '%s': its %s is left out, which is no number: %.40r", id, field, value)
    return None


def _read(
    id: str, file: Path, metadata: dict[str, Any], observation_space: Any, action_space: Any
) -> tuple[cache.Flat, dict[Path, cache.State]]:
    """The whole data set, packed and checked, and the files that it was made of, as they are."""
    leaves = list(_leaves(id, observation_space, ()))
    spec = spec_of(f"data set '{id}'", sum(_width(leaf) for _, leaf in leaves), action_space)
    try:
        made_of = {path: cache.state(path) for path in (file, file.parent / METADATA)}
        with h5py.File(file) as source:
            made_of |= {path: cache.state(path) for path in _linked(id, source)}
            packed, lengths = _read_episodes(id, source, leaves, spec)
        changed = [path for path, before in made_of.items() if cache.state(path) != before]
    except FileNotFoundError as error:
        if file.exists():
            raise UserError(f"data set '{id}': a part of it is missing: {error.filename}; {_again(id)}") from None
        kind = metadata.get("data_format")
        raise UserError(f"data set '{id}' has no {file.name} (its format is {kind}): only hdf5 is read") from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"data set '{id}': {file} {_trouble(error)}") from None
    if changed:
        raise UserError(f"data set '{id}' is being written: {changed[0]} has changed; wait until that is done")
    if spec.discrete:
        packed[:, spec.obs_dim] -= int(action_space.start)
        _zero_final_rows(packed, lengths, spec)
    _check_content(id, packed, lengths, spec)
    return (torch.from_numpy(packed), torch.from_numpy(lengths), spec), made_of


def _linked(id: str, source: h5py.File) -> list[Path]:
    """Other files that hold episodes, as of data sets that were combined."""
    found = set()
    for name in source:
        if source.id.links.get_info(os.fsencode(name)).type == h5py.h5l.TYPE_EXTERNAL:
            try:
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
        return (
            f"is of a newer HDF5 than {h5py.version.hdf5_version}, or damaged ({said}): update h5py, or fetch it again"
        )
    if "filter" in said:
        return f"is compressed in a way that is not installed here ({said}): write it anew without, or install that"
    if number:
        return f"cannot be read: {os.strerror(number)}"
    return f"is damaged ({first_line(error)}); fetch it again"


def _leaves(id: str, space: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The numeric parts of an observation with their place in the file, in the order of gymnasium's flatten."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from _leaves(id, part, (*path, str(key)))
    elif isinstance(space, spaces.Tuple):
        for index, part in enumerate(space.spaces):
            yield from _leaves(id, part, (*path, f"_index_{index}"))
    elif isinstance(space, spaces.Box | spaces.Discrete):
        yield path, space
    else:
        where = "/".join(path) or "the observation"
        raise UserError(f"data set '{id}': {where} is a {type(space).__name__}; use one of Box, Discrete, Dict, Tuple")


def _width(leaf: Any) -> int:
    return int(leaf.n) if isinstance(leaf, spaces.Discrete) else int(np.prod(leaf.shape))


def _read_episodes(
    id: str, source: h5py.File, leaves: list[tuple[tuple[str, ...], Any]], spec: Spec
) -> tuple[Array, NDArray[np.int64]]:
    names = sorted(filter(EPISODE.fullmatch, source), key=lambda name: int(name[8:]))
    if not names:
        raise UserError(f"data set '{id}' has no episodes")
    groups = [source[name] for name in names]
    lengths = np.array([_length(id, name, group) for name, group in zip(names, groups, strict=True)])
    total = int(lengths.sum())
    packed = np.zeros((total + len(lengths), spec.obs_dim + spec.action_dim + 3), np.float32)
    starts = (lengths + 1).cumsum() - (lengths + 1)
    # One array a field, read into directly: h5py's convenient reads cost several times as much an episode.
    column = 0
    for path, leaf in leaves:
        field = "/".join(("observations", *path))
        stacked = _stack(id, names, groups, field, leaf.shape, lengths + 1)
        if isinstance(leaf, spaces.Discrete):
            stacked = _one_hot(id, field, stacked, leaf)
        packed[:, column : column + stacked.shape[1]] = stacked
        column += stacked.shape[1]
    at = np.arange(total) + np.repeat(np.arange(len(lengths)), lengths)
    action_shape = () if spec.discrete else (spec.action_dim,)
    for field, shape in (("actions", action_shape), ("rewards", ()), ("terminations", ()), ("truncations", ())):
        stacked = _stack(id, names, groups, field, shape, lengths)
        packed[at, column : column + stacked.shape[1]] = stacked
        column += stacked.shape[1]
    _check_ends(id, names, packed, starts, lengths)
    return packed, lengths


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
        length = int(group["rewards"].shape[0])
    except (KeyError, AttributeError, IndexError, TypeError, ValueError):
        raise UserError(f"data set '{id}', {name}: rewards is missing or no list of numbers; {_again(id)}") from None
    if length == 0:
        raise UserError(f"data set '{id}', {name}: it has no steps; remove the episode")
    return length


def _stack(
    id: str, names: list[str], groups: list[Any], field: str, shape: tuple[int, ...], rows: NDArray[np.int64]
) -> Array:
    """All episodes' `field` end to end, [sum of rows, width] float32."""
    width = int(np.prod(shape))
    out = np.empty((int(rows.sum()), width), np.float32)
    start = 0
    for name, group, count in zip(names, groups, rows.tolist(), strict=True):
        try:
            data = group[field]
            found = data.shape or (0,)
        except (KeyError, AttributeError):
            raise UserError(f"data set '{id}', {name}: {field} is missing; {_again(id)}") from None
        if _elsewhere(group, data):
            raise UserError(f"data set '{id}', {name}: {field} is kept in another file; write the data set anew")
        if found[0] != count:
            raise UserError(
                f"data set '{id}', {name}: {field} has {found[0]} rows, {count} were expected: "
                "an episode of T steps has T + 1 observations and T of everything else"
            )
        if int(np.prod(found[1:])) != width:
            raise UserError(f"data set '{id}', {name}: {field} has shape {found[1:]}, its space has {shape}")
        try:
            data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, out[start : start + count].reshape(found))
        except (OSError, TypeError):
            if data.dtype.kind in "biuf":
                raise
            raise UserError(f"data set '{id}', {name}: {field} holds {data.dtype}, which are no numbers") from None
        start += count
    return out


def _elsewhere(group: Any, data: Any) -> bool:
    """Whether an array is not in the file of its episode, so that a change of it would not be seen."""
    plan = data.id.get_create_plist()
    virtual = plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count() > 0
    return virtual or h5py.h5f.get_name(data.id) != h5py.h5f.get_name(group.id)


def _one_hot(id: str, field: str, values: Array, space: Any) -> Array:
    index = values[:, 0] - int(space.start)
    if not ((index >= 0) & (index < space.n) & (index == index.round())).all():
        raise UserError(f"data set '{id}': {field} holds values outside {space}")
    return np.eye(int(space.n), dtype=np.float32)[index.astype(np.int64)]


def _zero_final_rows(packed: Array, lengths: NDArray[np.int64], spec: Spec) -> None:
    packed[(lengths + 1).cumsum() - 1, spec.obs_dim :] = 0


def _check_content(id: str, packed: Array, lengths: NDArray[np.int64], spec: Spec) -> None:
    starts = (lengths + 1).cumsum() - (lengths + 1)
    names = {
        "observations": slice(0, spec.obs_dim),
        "actions": slice(spec.obs_dim, -3),
        "rewards": slice(-3, -2),
    }

    def refuse(field: str, wrong: NDArray[np.bool_], why: str) -> None:
        rows = np.flatnonzero(wrong.any(1))
        if rows.size:
            row = rows[0]
            episode = int(np.searchsorted(starts, row, "right") - 1)
            value = packed[row, names[field]][wrong[row]][0]
            where = f"episode {episode}: {field} holds {value:g} at step {row - starts[episode]}"
            raise UserError(f"data set '{id}', {where}; {why}")

    for field, columns in names.items():
        refuse(field, ~np.isfinite(packed[:, columns]), "repair or remove the episode")
    action = packed[:, names["actions"]]
    transition = np.ones((len(packed), 1), bool)
    transition[(lengths + 1).cumsum() - 1] = False
    if spec.num_actions is not None:
        wrong = (action < 0) | (action >= spec.num_actions) | (action != action.round())
        refuse("actions", wrong & transition, f"its space counts {spec.num_actions} actions")
    else:
        low, high = np.array(spec.action_low, np.float32), np.array(spec.action_high, np.float32)
        slack = np.where(np.isfinite(high - low), BOUND_TOLERANCE * (high - low), 0)
        wrong = (action < low - slack) | (action > high + slack)
        refuse("actions", wrong & transition, "it is outside the bounds of its space: clip it or widen the space")


def _returns(packed: Tensor, lengths: Tensor) -> NDArray[np.float64]:
    starts = (lengths + 1).cumsum(0) - (lengths + 1)
    return np.add.reduceat(packed[:, -3].numpy().astype(np.float64), starts.numpy())


def _digest(packed: Tensor, lengths: Tensor) -> str:
    """Of the lengths and of a spread of rows: enough to tell data sets apart without reading a large one whole."""
    rows = packed[:: max(1, len(packed) // 10_000)]
    return hashlib.sha256(rows.numpy().tobytes() + lengths.numpy().tobytes()).hexdigest()[:16]
