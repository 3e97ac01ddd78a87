"""Minari data sets in: found, read fast, checked once, and kept as a flat cache beside the file."""

import difflib
import hashlib
import json
import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.transitions import DataInfo, Transitions, select
from awr_exp.envs.make import spec_of
from awr_exp.errors import UserError, first_line
from awr_exp.types import Spec

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the cache: a change of its content makes old ones useless."""
ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")
HUB = ("huggingface.co", 443)
BOUND_TOLERANCE = 1e-4
"""How far an action may lie outside its bounds, relative to their distance: float32 rounding, not a mistake."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class EnvSource:
    """The registered environment that a data set names."""

    id: str
    kwargs: dict[str, Any]
    max_episode_steps: int | None


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
    state = file.stat() if file.exists() else (folder / "metadata.json").stat()
    key = hashlib.sha256(f"{FORMAT}:{id}:{state.st_size}:{state.st_mtime_ns}".encode()).hexdigest()[:16]
    cached = _read_cache(folder, key)
    if cached is None:
        cached = _read(id, file, metadata)
        _write_cache(folder, key, *cached)
    packed, lengths, spec = cached
    info = DataInfo(
        id=id,
        episode_returns=_returns(packed, lengths),
        transitions=int(lengths.sum()),
        fingerprint=f"{id}:{_digest(packed, lengths)}",
        env_spec=_env_source(metadata),
        ref_min_score=metadata.get("ref_min_score"),
        ref_max_score=metadata.get("ref_max_score"),
    )
    return select(packed, lengths, spec, info, top_percent, reward_scale, max_transitions).to(device)


def root() -> Path:
    """Where Minari keeps its data sets; absolute, for it cannot write to a relative one."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets").absolute()


def _find(id: str, download: bool) -> Path:
    if not ID.fullmatch(id):
        raise UserError(f"dataset.id '{id}' is not a Minari id: it looks like mujoco/halfcheetah/medium-v0")
    folder = root() / id / "data"
    if not folder.is_dir() and download:
        _download(id)
    if not folder.is_dir():
        local = sorted(str(path.parent.parent.relative_to(root())) for path in root().glob("**/data/metadata.json"))
        near = difflib.get_close_matches(id, local, 3, 0.5) or local[:3]
        hint = f"here are {', '.join(near)}; " if near else ""
        raise UserError(f"data set '{id}' is not in {root()}: {hint}dataset.download=true fetches it from the hub")
    return folder


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
    path = folder / "metadata.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"data set '{id}': {path} cannot be read: {first_line(error)}; fetch it again") from None
    if not isinstance(content, dict) or "observation_space" not in content or "action_space" not in content:
        raise UserError(f"data set '{id}': {path} names no observation_space or action_space; fetch it again")
    return content


def _env_source(metadata: dict[str, Any]) -> EnvSource | None:
    # Only the registered id is taken: an entry point found in a file would be somebody else's code.
    try:
        content = json.loads(metadata["env_spec"])
        return EnvSource(content["id"], dict(content.get("kwargs") or {}), content.get("max_episode_steps"))
    except (KeyError, TypeError, ValueError):
        return None


def _read(id: str, file: Path, metadata: dict[str, Any]) -> tuple[Tensor, Tensor, Spec]:
    """The whole data set, packed and checked."""
    from minari.serialization import deserialize_space

    try:
        observation_space = deserialize_space(metadata["observation_space"])
        action_space = deserialize_space(metadata["action_space"])
    except Exception as error:
        raise UserError(f"data set '{id}': a space in its metadata cannot be read: {first_line(error)}") from None
    leaves = list(_leaves(id, observation_space, ()))
    spec = spec_of(f"data set '{id}'", sum(_width(leaf) for _, leaf in leaves), action_space)
    try:
        with h5py.File(file) as source:
            packed, lengths = _read_episodes(id, source, leaves, spec)
    except FileNotFoundError:
        kind = metadata.get("data_format")
        raise UserError(f"data set '{id}' has no {file.name} (its format is {kind}): only hdf5 is read") from None
    except (OSError, RuntimeError) as error:
        raise UserError(f"data set '{id}': {file} is damaged ({first_line(error)}); fetch it again") from None
    if spec.discrete:
        packed[:, spec.obs_dim] -= int(action_space.start)
        _zero_final_rows(packed, lengths, spec)
    _check_content(id, packed, lengths, spec)
    return torch.from_numpy(packed), torch.from_numpy(lengths), spec


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
    names = sorted((name for name in source if name.startswith("episode_")), key=lambda name: int(name[8:]))
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
    ends = starts + lengths - 1
    packed[ends, -1] = 1 - packed[ends, -2]
    early = packed[:, -2].sum() - packed[ends, -2].sum()
    if early:
        packed[ends, -2] = 0
        row = int(packed[:, -2].argmax())
        episode = int(np.searchsorted(starts, row, "right") - 1)
        raise UserError(
            f"data set '{id}', {names[episode]}: terminations is set at step {row - starts[episode]} of "
            f"{lengths[episode]}; an episode must end where it terminates"
        )
    # A truncation inside an episode cannot be one: what follows it goes on.
    inner = np.ones(len(packed), bool)
    inner[ends] = False
    packed[inner, -1] = 0
    return packed, lengths


def _length(id: str, name: str, group: Any) -> int:
    try:
        length = int(group["rewards"].shape[0])
    except (KeyError, AttributeError, IndexError):
        raise UserError(f"data set '{id}', {name}: rewards is missing; fetch the data set again") from None
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
            found = data.shape
        except (KeyError, AttributeError):
            raise UserError(f"data set '{id}', {name}: {field} is missing; fetch the data set again") from None
        if found[0] != count:
            raise UserError(
                f"data set '{id}', {name}: {field} has {found[0]} rows, {count} were expected: "
                "an episode of T steps has T + 1 observations and T of everything else"
            )
        if int(np.prod(found[1:])) != width:
            raise UserError(f"data set '{id}', {name}: {field} has shape {found[1:]}, its space has {shape}")
        data.id.read(h5py.h5s.ALL, h5py.h5s.ALL, out[start : start + count].reshape(found))
        start += count
    return out


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


def _cache_folders(folder: Path) -> Iterator[Path]:
    yield folder / ".awr_exp_cache"
    yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "awr_exp"


def _read_cache(folder: Path, key: str) -> tuple[Tensor, Tensor, Spec] | None:
    for place in _cache_folders(folder):
        try:
            facts = json.loads((place / f"{key}.json").read_text())
            spec = Spec.from_json(facts["spec"])
            lengths = np.array(facts["lengths"], np.int64)
            # Copy on write: torch wants writable memory, the file stays as it is.
            packed = np.load(place / f"{key}.npy", mmap_mode="c")
            if packed.shape == (lengths.sum() + len(lengths), spec.obs_dim + spec.action_dim + 3):
                small = packed.nbytes < _free_memory() / 2
                return (
                    torch.from_numpy(np.array(packed) if small else packed),
                    torch.from_numpy(lengths),
                    spec,
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.debug("no cache in %s: %s", place, error)
    return None


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _write_cache(folder: Path, key: str, packed: Tensor, lengths: Tensor, spec: Spec) -> None:
    """Beside the data set, or in the user's cache where that folder is read-only, or nowhere."""
    facts = json.dumps({"spec": asdict(spec), "lengths": lengths.tolist()})
    for place in _cache_folders(folder):
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place) as work:
                np.save(Path(work) / "packed.npy", packed.numpy())
                (Path(work) / "facts.json").write_text(facts)
                os.replace(Path(work) / "packed.npy", place / f"{key}.npy")
                os.replace(Path(work) / "facts.json", place / f"{key}.json")
            return
        except OSError as error:
            log.debug("no cache written to %s: %s", place, error)
