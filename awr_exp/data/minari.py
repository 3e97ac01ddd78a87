"""Minari data sets in: found, read fast, checked once, and kept as a flat cache beside the file."""

import difflib
import hashlib
import json
import logging
import os
import re
import socket
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awr_exp import layout
from awr_exp.data import cache, content, hdf5
from awr_exp.data.chunks import chunks
from awr_exp.data.damage import AGAIN
from awr_exp.data.hdf5 import METADATA
from awr_exp.data.hindsight import goals_of, relabelled
from awr_exp.data.room import Room, WaitedError
from awr_exp.data.selection import in_unit, select
from awr_exp.data.transitions import Transitions
from awr_exp.envs import goals, source
from awr_exp.envs.spaces import spec_of
from awr_exp.errors import UserError, first_line, named, printable
from awr_exp.ranges import Count, Goals, Number, Percent, Positive, Text, Whole, checked
from awr_exp.types import DataInfo, RewardUnit

log = logging.getLogger(__name__)

ID = re.compile(r"([-\w]+/)*[-\w]+-v\d+")
HUB = ("huggingface.co", 443)
SCORES = {"HalfCheetah": (-280.18, 12135.0), "Hopper": (-20.27, 3234.3), "Walker2d": (1.63, 4592.3)}
"""Returns of random and expert policies by D4RL (Fu et al. 2020, arXiv 2004.07219), which the hub's sets lack."""


@checked("dataset")
def load(
    id: Text,
    top_percent: Percent | None = None,
    reward_scale: Positive = 1.0,
    reward_shift: Number = 0.0,
    max_transitions: Count | None = None,
    history: Count = 1,
    action_chunk: Count = 1,
    hindsight: Whole = 0,
    goal_reward: Goals = None,
    download: bool = False,
    gamma: float = 1.0,
    device: torch.device | str = "cpu",
) -> Transitions:
    """The data set `id` of the local Minari root, or of the hub if `download` is set.

    See `select` for the options; action_chunk: the steps of `chunks`, whose rewards are summed by the discount gamma;
    hindsight: copies of each episode with goals that it came to, see `awr_exp.data.hindsight`; goal_reward: who judges
    them, see `awr_exp.envs.goals.judge`. Raises UserError, naming data set, episode and field, for what is missing,
    damaged or not usable.
    """
    folder = _find(id, download)
    metadata = _metadata(id, folder)
    observation, action = (_space(id, metadata, name) for name in ("observation_space", "action_space"))
    flat = _flat(id, folder, metadata, observation, action)
    spec = flat.spec
    own = _env_source(id, metadata, "env_spec")
    info = DataInfo(
        id=id,
        episode_returns=flat.returns,
        fingerprint=f"{id}:{_digest(flat.packed, flat.lengths)}",
        env_spec=own,
        eval_env_spec=_env_source(id, metadata, "eval_env_spec"),
        observation_space=observation,
        observation_columns=_named(metadata, "observation_columns", spec.obs_dim),
        action_columns=_named(metadata, "action_columns", spec.action_dim),
        **_scores(id, metadata, own),
    )
    data = Transitions(flat.packed, flat.lengths, spec, info)
    for doubt in content.doubts(data, own.max_episode_steps if own else None):
        log.warning("warning: data set '%s': %s", id, doubt)
    data = select(data, top_percent, max_transitions=max_transitions, history=history)
    if hindsight:
        # What the data lack is said before an environment is made.
        goals_of(data)
        with goals.judge(data.info, spec, goal_reward) as judge:
            data = relabelled(data, hindsight, judge)
    elif goal_reward is not None:
        raise UserError("dataset.goal_reward has no effect without copies: give dataset.hindsight=4, or leave it out")
    return chunks(in_unit(data, RewardUnit(reward_scale, reward_shift)), action_chunk, gamma).to(device)


def _flat(id: str, folder: Path, metadata: dict[str, Any], observation: Any, action: Any) -> cache.Flat:
    """The packed rows and what belongs to them, from the cache or from the file."""
    file = folder / "main_data.hdf5"
    if not file.is_file():
        kind = str(metadata.get("data_format"))
        problem = f"{file} is no file" if file.exists() else f"no {file.name} (its format is {kind:.20})"
        raise UserError(f"data set '{id}': {problem}; only hdf5 is read")
    flat = cache.read(folder, [file, folder / METADATA])
    while flat is None:
        try:
            with Room(id, cache.drafts(folder)) as room:
                flat, made_of = hdf5.read(id, file, spec_of(f"data set '{id}'", observation, action), room)
                cache.write(folder, made_of, flat, room.draft)
        except WaitedError:
            flat = cache.read(folder, [file, folder / METADATA])
    if flat.coarse:
        said = layout.about_coarse(flat.coarse, "in the data and in the environment")
        log.warning("warning: data set '%s': %s", id, said)
    count = len(flat.lengths)
    if (written := metadata.get("total_episodes", count)) != count:
        log.warning("data set '%s' has %d episodes, %s by its %s: it may be incomplete", id, count, written, METADATA)
    return flat


def root() -> Path:
    """Where Minari keeps its data sets; absolute, for it cannot write to a relative one.

    Raises UserError for a user who has no home and says no other place.
    """
    try:
        place = os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets"
    except RuntimeError:
        raise UserError("this user has no home folder to keep data sets in: set MINARI_DATASETS_PATH") from None
    return Path(place).absolute()


def _find(id: str, download: bool) -> Path:
    """The folder with the data, which are downloaded if that is wanted and they are not there."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise UserError(f"dataset.id {id!r} is not a Minari id: it looks like mujoco/halfcheetah/medium-v0")
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
        raise UserError(f"data set '{id}' is not whole: {folder} is missing or empty; {AGAIN}")
    local = sorted(str(path.parent.parent.relative_to(root())) for path in root().glob(f"**/data/{METADATA}"))
    near = difflib.get_close_matches(id, local, 3, 0.5) or local[:3]
    hint = f"here are {', '.join(near)}; " if near else ""
    raise UserError(f"data set '{id}' is not in {root()}: {hint}dataset.download=true fetches it from the hub")


def _download(id: str) -> None:
    """Fetch the data set from the hub."""
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
    """What Minari has written about the data set."""
    path = folder / METADATA
    try:
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        old = " (Minari kept data so before 0.5: save it anew with a newer one)" if any(folder.glob("*.hdf5")) else ""
        raise UserError(f"data set '{id}' has no {path}{old}; {AGAIN}") from None
    except OSError as error:
        raise UserError(f"data set '{id}': {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"data set '{id}': {path} is no JSON in UTF-8 ({named(error):.120}); {AGAIN}") from None
    if not isinstance(content, dict) or not content.keys() >= {"observation_space", "action_space"}:
        raise UserError(f"data set '{id}': {path} names no observation_space or action_space; {AGAIN}")
    return content


def _space(id: str, metadata: dict[str, Any], name: str) -> Any:
    """The space of observations, or of actions, as the data set says."""
    from minari.serialization import deserialize_space

    try:
        return deserialize_space(metadata[name])
    except Exception as error:
        said = f"{metadata[name]!r:.80} ({named(error):.120})"
        raise UserError(f"data set '{id}': its {name} cannot be read: {said}") from None


def _env_source(id: str, metadata: dict[str, Any], field: str) -> source.EnvSource | None:
    """An environment that the metadata name, by its registered id: an entry point would be somebody else's code."""
    if metadata.get(field) is None:
        return None
    try:
        return source.parse(metadata[field])
    except (ValueError, RecursionError) as error:
        log.warning("data set '%s': its %s is left out, which cannot be read: %s", id, field, first_line(error))
        return None


def _named(metadata: dict[str, Any], field: str, width: int) -> tuple[str, ...]:
    """The names of columns, as an import notes them; none where they are of another width."""
    names = metadata.get(field)
    if not isinstance(names, list) or len(names) != width or not all(isinstance(name, str) for name in names):
        return ()
    return tuple(" ".join(printable(name).split()) for name in names)


def _scores(id: str, metadata: dict[str, Any], own: source.EnvSource | None) -> dict[str, Any]:
    """The reference scores of the data set by name, or those of its task in D4RL.

    None, with a warning, for one that is no number.
    """
    scores: dict[str, Any] = {name: metadata.get(name) for name in ("ref_min_score", "ref_max_score")}
    for name, value in scores.items():
        if value is not None and not (type(value) in (int, float) and abs(value) < 1e300):
            log.warning("data set '%s': its %s is left out, which is no number: %.40r", id, name, value)
            scores[name] = None
    task = own.id.partition("-v")[0] if own and not own.kwargs else ""
    if list(scores.values()) == [None, None] and task in SCORES:
        log.info("data set '%s' has no reference scores: those of D4RL are taken for %s", id, task)
        return dict(zip(scores, SCORES[task], strict=True))
    low, high = scores.values()
    if low is not None and high is not None and high <= low:
        log.warning("data set '%s' has no normalized scores: ref_min_score is %g, ref_max_score %g", id, low, high)
    return scores


def _digest(packed: Tensor, lengths: Tensor) -> str:
    """A digest of the lengths and of a spread of rows: enough to tell data sets apart without reading all of one."""
    rows = packed[:: max(1, len(packed) // 10_000)]
    return hashlib.sha256(rows.numpy().tobytes() + lengths.numpy().tobytes()).hexdigest()[:16]
