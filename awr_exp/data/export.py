"""Minari data sets out: a whole one appears under its id, or none."""

import errno
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium

from awr_exp import shell
from awr_exp.data.minari import ID, root
from awr_exp.envs.make import overrides
from awr_exp.envs.spaces import bare, canonical
from awr_exp.errors import UserError, named
from awr_exp.guard import foreign_module

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


def make_place(id: str) -> None:
    """The folder that the data set will lie in. Raises UserError if it cannot be written."""
    try:
        (root() / id).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from None


def check_env(env: gymnasium.Env) -> None:
    """Raises UserError if a data set cannot say that it comes from `env`."""
    env = bare(env)
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
    buffers: Iterable[Any],
    env: gymnasium.Env,
    actions: gymnasium.Space,
    algorithm: str,
    reference: tuple[float, float] | None,
    about: str,
) -> bool:
    """Write Minari's EpisodeBuffers, which come from env, as data set `id`, one after another.

    actions: the space of those that env got; reference: mean returns of a random and of a good policy, as they were
    measured, if any. If somebody else has written it meanwhile, that one stays, and the result is False. Raises
    UserError where the place cannot be written, or is full.
    """
    import minari

    env, target = bare(env), root() / id
    make_place(id)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as work:
            with _root(work), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                written = minari.create_dataset_from_buffers(
                    id,
                    _while_there_is_room(buffers, Path(work)),
                    env=env,
                    observation_space=canonical(env.observation_space),
                    action_space=actions,
                    # Pixels as they are: JPEG would change them.
                    jpeg_encoding=False,
                    algorithm_name=algorithm,
                    description=about,
                    author="awr_exp",
                    author_email="none@example.invalid",
                    code_permalink="none",
                )
                if reference is not None:
                    # Given to it above, Minari would make the environment once more.
                    low, high = reference
                    written.storage.update_metadata({"ref_min_score": low, "ref_max_score": high})
            if target.exists() and not exists(id) and not _holds_others(target):
                # What a killed run of another program left behind.
                shutil.rmtree(target)
            if not target.exists():
                os.rename(Path(work) / id, target)
                return True
    except OSError as error:
        # Two processes may write at once: the one that comes second uses what the first left.
        if not exists(id):
            raise _unwritable(error) from None
    return False


def _unwritable(error: OSError) -> UserError:
    reason = error.strerror or named(error)
    return UserError(f"{root()} cannot be written ({reason}): set MINARI_DATASETS_PATH to a folder that can")


def command(id: str, env: gymnasium.Env, clip_actions: bool = True) -> str:
    """What trains on a data set that comes from env."""
    place = overrides(env.spec, clip_actions) if env.spec and foreign_module(env.spec.id) else []
    return shell.command("dataset=minari", shell.override("dataset.id", id), *place)


def _while_there_is_room(buffers: Iterable[Any], place: Path) -> Iterator[Any]:
    """Raises OSError before the disk is full: in the middle of an episode, that would crash HDF5 and all of Python."""
    for buffer in buffers:
        if shutil.disk_usage(place).free < ROOM + 4 * _bytes(buffer.observations):
            raise OSError(errno.ENOSPC, f"less than {ROOM >> 20} MB would be left of its disk")
        yield buffer


def _bytes(observations: Any) -> int:
    """Of an episode's, in whatever structure."""
    if isinstance(observations, dict | tuple):
        return sum(map(_bytes, observations.values() if isinstance(observations, dict) else observations))
    return int(observations.nbytes)


@contextmanager
def _root(place: str) -> Iterator[None]:
    """Minari's root is `place` for a while."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = place
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
