"""Minari data sets out: a whole one appears under its id, or none."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from awr_exp import shell
from awr_exp.data.minari import ID, root
from awr_exp.envs.episode import Episode
from awr_exp.envs.make import of_spec, overrides
from awr_exp.envs.spaces import canonical, unbounded
from awr_exp.errors import UserError, named
from awr_exp.guard import foreign_module
from awr_exp.layout import structured, unflatten
from awr_exp.types import Spec

ROOM = 2**25
"""Bytes that stay free on a disk that data sets are written to."""


def exists(id: str) -> bool:
    return (root() / id / "data" / "metadata.json").exists()


def check_new(id: str, name: str) -> None:
    """Raises UserError if `id`, the value of the setting `name`, is no Minari id or the data set is there already."""
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        if not ID.fullmatch(id):
            raise ValueError
        parse_dataset_id(id)
    except ValueError:
        hint = "it looks like pendulum/mixed-v0, with two letters or more before the slash"
        raise UserError(f"{name} '{id}' is not a Minari id: {hint}") from None
    if exists(id):
        raise UserError(f"data set '{id}' is in {root()} already: choose another {name}, or delete {root() / id}")
    if _holds_others(root() / id):
        raise UserError(f"{root() / id} is a folder of other data sets: choose another {name}")


def _holds_others(folder: Path) -> bool:
    """Whether other data sets, whose ids begin with its name, may be in a folder: one of its own has only its data."""
    return folder.is_dir() and any(child.name != "data" for child in folder.iterdir())


def make_place(id: str) -> Path:
    """The folder that the data set will be, in a folder that is made. Raises UserError if that cannot be written."""
    target = root() / id
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(error) from None
    return target


def check_env(env: gymnasium.Env) -> None:
    """Raises UserError if a data set cannot say that it comes from `env`."""
    try:
        if env.spec is not None:
            env.spec.to_json()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"no data set can name this environment: {' '.join(str(error).split())} Register it with text alone, such "
            "as entry_point='module:Class'"
        ) from None


def create(
    id: str,
    episodes: Iterable[Episode],
    spec: Spec,
    env: gymnasium.Env,
    scores: tuple[float, float] | None,
    **about: str,
) -> bool:
    """Write episodes of a task as it was played in env as data set `id`, one after another.

    scores: mean returns of a random and of a good policy, as they were measured, if any; about: texts of Minari's
    metadata, such as the description. If somebody else has written it meanwhile, that one stays, and the result is
    False. Raises UserError where the place cannot be written, or is full.
    """
    observations, actions = map(canonical, (env.observation_space, env.action_space))
    if not np.isfinite([spec.action_low, spec.action_high]).any():
        # All actions were played as they were.
        actions = unbounded(actions)
    low, high = scores or (None, None)
    metadata = {"ref_min_score": low, "ref_max_score": high, **about}
    return publish(id, (observations, actions), env.spec, _buffers(episodes, spec, make_place(id).parent), metadata)


def publish(
    id: str,
    own: tuple[Any, Any],
    env_spec: Any,
    buffers: Iterable[Any],
    metadata: dict[str, Any],
    beside: Path | None = None,
) -> bool:
    """Write Minari's EpisodeBuffers as data set `id`, which appears whole or not at all.

    own: the spaces of observations and of actions; metadata: what else Minari is to know, without what is None;
    beside: a folder on the same disk to draft in, whose owner tidies up after a kill. As of `create`, the result is
    False where somebody else was first. Raises UserError where the place cannot be written.
    """
    import minari
    from minari.dataset.minari_storage import MinariStorage

    known = {"dataset_id": id, "minari_version": minari.__version__, "author": {"awr_exp"}, **metadata}
    target = make_place(id)
    try:
        with tempfile.TemporaryDirectory(dir=beside or target.parent, prefix=".writing-") as work:
            draft = Path(work) / target.name
            draft.mkdir()
            # Pixels as they are: JPEG would change them.
            storage = MinariStorage.new(draft / "data", *own, env_spec, jpeg_encoding=False)
            storage.update_metadata({name: value for name, value in known.items() if value is not None})
            storage.update_episodes(buffers)
            if target.exists() and not exists(id) and not _holds_others(target):
                # What a killed run of another program left behind.
                shutil.rmtree(target)
            if not target.exists():
                os.rename(draft, target)
                return True
    except OSError as error:
        # Two processes may write at once: the one that comes second uses what the first left.
        if not exists(id):
            raise unwritable(error) from None
    return False


def unwritable(error: OSError) -> UserError:
    """What is said where data sets cannot be written."""
    reason = error.strerror or named(error)
    return UserError(f"{root()} cannot be written ({reason}): set MINARI_DATASETS_PATH to a folder that can")


def check_room(place: Path, size: int) -> None:
    """Raises OSError where so many bytes would fill the disk, which crashes HDF5 and all of Python with it."""
    if shutil.disk_usage(place).free < ROOM + size:
        raise OSError(errno.ENOSPC, f"less than {ROOM >> 20} MB would be left of its disk")


def command(id: str, env: gymnasium.Env, clip_actions: bool = True) -> str:
    """The command that trains on a data set that comes from env."""
    place = overrides(of_spec(env.spec, clip_actions)) if env.spec and foreign_module(env.spec.id) else []
    return shell.command("dataset=minari", shell.override("dataset.id", id), *place)


def _buffers(episodes: Iterable[Episode], spec: Spec, place: Path) -> Iterator[Any]:
    """Minari's EpisodeBuffer of each episode, with observations and actions as the environment has them.

    Raises OSError before the disk is full.
    """
    from minari.data_collector import EpisodeBuffer

    for episode in episodes:
        check_room(place, 4 * sum(column.nbytes for column in episode.values()))
        yield EpisodeBuffer(
            observations=unflatten(spec.entries, np.concatenate([episode["obs"], episode["next_obs"][-1:]])),
            actions=structured(spec.action, episode["action"] + spec.starts if spec.discrete else episode["action"]),
            rewards=episode["reward"].astype(np.float64).tolist(),
            terminations=episode["terminated"].tolist(),
            truncations=episode["truncated"].tolist(),
            infos={},
        )
