"""Minari data sets out: a whole one appears under its id, or none."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium

from awr_exp.data.minari import ID, root
from awr_exp.errors import UserError


def exists(id: str) -> bool:
    return (root() / id / "data" / "metadata.json").exists()


def check_new(id: str, name: str) -> None:
    """Raises UserError if `id`, the value of the setting `name`, is no Minari id or the data set is there already."""
    if not ID.fullmatch(id):
        raise UserError(f"{name} '{id}' is not a Minari id: it looks like pendulum/mixed-v0")
    if exists(id):
        raise UserError(f"data set '{id}' is in {root()} already: choose another {name}, or delete {root() / id}")


def create(
    id: str, buffers: Sequence[Any], env: gymnasium.Env, algorithm: str, reference: tuple[float, float], about: str
) -> bool:
    """Write Minari's EpisodeBuffers, which come from env, as data set `id`.

    reference: mean returns of a random and of a good policy, as they were measured. If somebody else has written it
    meanwhile, that one stays, and the result is False. Raises UserError where the place cannot be written, or is full.
    """
    import minari

    target = root() / id
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as work:
            with _root(work), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                minari.create_dataset_from_buffers(
                    id,
                    list(buffers),
                    env=env.spec,
                    observation_space=env.observation_space,
                    action_space=env.action_space,
                    algorithm_name=algorithm,
                    description=about,
                    author="awr_exp",
                    author_email="none@example.invalid",
                    code_permalink="none",
                    ref_min_score=reference[0],
                    ref_max_score=reference[1],
                )
            if target.exists() and not exists(id):
                # What a killed run of another program left behind.
                shutil.rmtree(target)
            if not target.exists():
                os.rename(Path(work) / id, target)
                return True
    except OSError as error:
        # Two processes may write at once: the one that comes second uses what the first left.
        if not exists(id):
            raise UserError(
                f"{root()} cannot be written ({error.strerror}): set MINARI_DATASETS_PATH to a folder that can"
            ) from None
    return False


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
