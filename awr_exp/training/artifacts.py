"""A run's policy as an artifact of W&B: how it is kept there, and how it comes back."""

import re
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import gettempdir
from typing import Any

from awr_exp.errors import UserError, named
from awr_exp.machine import own_cache, own_folder
from awr_exp.training.wandb_settings import has_key

PREFIX = "wandb:"
MODEL = "policy.safetensors"
"""The file in the artifact, which is a checkpoint."""


def upload(run: Any, id: str | None, checkpoints: Path) -> None:
    """Keep the best checkpoint of a W&B run, or its newest if nothing was evaluated, as its artifact `model-<id>`."""
    import wandb

    best, numbered = checkpoints / "best.safetensors", sorted(checkpoints.glob("update_*.safetensors"))
    found = [best] if best.exists() else numbered[-1:]
    for path in found:
        artifact = wandb.Artifact(f"model-{id}", type="model")
        artifact.add_file(str(path), MODEL)
        run.log_artifact(artifact)


def local(path: str | Path) -> Path:
    """A path as it is, or that of the checkpoint which `wandb:entity/project/artifact:v3` names, once it is here.

    Without entity and project they are your default ones, without a version it is the latest. Raises UserError if it
    cannot be had, or is none.
    """
    name = str(path)
    if not name.startswith(PREFIX):
        return Path(path)
    if not re.fullmatch(r"([^/:]+/){0,2}[^/:]+(:[^/:]+)?", name.removeprefix(PREFIX)):
        raise UserError(f"{name} names no artifact: write wandb:entity/project/artifact:v3")
    if not has_key():
        raise UserError(f"{name} cannot be had without a W&B key: run `wandb login` first")
    try:
        return _downloaded(name)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} cannot be had from W&B: {named(error)}") from None


def _downloaded(name: str) -> Path:
    import wandb

    wanted = name.removeprefix(PREFIX)
    artifact = wandb.Api(timeout=20).artifact(wanted if ":" in wanted else f"{wanted}:latest")
    entry = _model(name, list(artifact.manifest.entries))
    # What the server calls it is no name of a folder yet.
    digest = sha256(f"{artifact.digest} {entry}".encode()).hexdigest()[:32]
    place = own_cache("artifacts") or own_folder(Path(gettempdir()) / "awr_exp-artifacts")
    if place is None:
        raise UserError(f"{name} cannot be kept here: neither ~/.cache nor {gettempdir()} can be written")
    return Path(artifact.get_entry(entry).download(root=str(place / digest)))


def _model(name: str, entries: list[str]) -> str:
    """The checkpoint among the files of an artifact. Raises UserError if there is none, or several."""
    plain = [PurePosixPath(one) for one in entries if one.endswith(".safetensors")]
    plain = [one for one in plain if not one.is_absolute() and ".." not in one.parts]
    found = [one for one in plain if one.name in (MODEL, "best.safetensors")] or plain
    if len(found) != 1:
        held = f"{len(found)} checkpoints" if found else "no checkpoint"
        raise UserError(f"{name} holds {held}: name an artifact of a run with logger.wandb.log_model=true")
    return str(found[0])
