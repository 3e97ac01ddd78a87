"""The folders of configurations, and what a configuration from a file may call. Nothing here imports torch."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from awr_exp import guard, reading, results, shell
from awr_exp.errors import UserError
from awr_exp.vocabulary import kinds

PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    """The checkout's folder, or the one that travelled in the wheel."""
    checkout = PACKAGE.parent / name
    return checkout if (PACKAGE.parent / "pyproject.toml").exists() and checkout.is_dir() else PACKAGE / f"_{name}"


CONF, SWEEPS = _folder("conf"), _folder("sweeps")

PARTS = "baseline", "offline"
"""The folders within that of a run which are runs themselves: see `awr_exp.training.run.Run.part`."""

GROUPS = frozenset(path.name for path in CONF.iterdir() if path.is_dir())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def check_trusted(content: Any, origin: Path, trust: Iterable[str] = ()) -> None:
    """Refuse with UserError what a resolved configuration, or some of its places by name, has from a file beyond our
    own parts, each where it belongs, plain values, and `trust`."""
    for name, what in guard.refusals(content, kinds(CONF)):
        if name is None:
            raise UserError(f"{origin} {what}")
        if name not in trust:
            raise UserError(f"{origin} {what}; if it is yours, {shell.words(shell.override('trust', [name]))}")


def to_resume(folder: Path, changes: Iterable[str] = ()) -> str:
    """The command that goes on with a run, and trusts what its configuration names; changes: overrides of that."""
    path = folder / ".hydra" / "config.yaml"
    try:
        content = guard.resolved(reading.read_yaml(path), path)
        names = sorted({name for name, _ in guard.refusals(content, kinds(CONF)) if name})
    except UserError:
        names = []
    trust = [shell.override("trust", names)] if names else []
    return shell.command(shell.override("resume", folder), *changes, *trust)


def saved_config(folder: Path, trust: Iterable[str]) -> DictConfig:
    """The configuration that a run was started with, but for what would go to the network by itself.

    Raises UserError if it is missing or not trusted.
    """
    path = folder / ".hydra" / "config.yaml"
    if not path.exists():
        raise UserError(f"{folder} is not the folder of a run: it has no .hydra/config.yaml")
    content = results.configuration(folder)
    if isinstance(known := guard.value_at(content, "logger.wandb"), dict):
        # Of earlier versions.
        known.pop("log_checkpoint", None)
    check_trusted(guard.resolved(content, path), path, trust)
    # Whether to go there is up to the command, and to this machine's own settings.
    dataset, wandb = content.get("dataset") or {}, (content.get("logger") or {}).get("wandb") or {}
    if dataset.get("download") is True:
        dataset["download"] = False
    if wandb.get("mode") == "online":
        wandb["mode"] = "auto"
    return OmegaConf.create(content)


def saved_values(path: Path, trust: Iterable[str], *names: str) -> dict[str, Any]:
    """Some values at the top of the configuration that a run was started with, groups among them; None of what is not.

    path: of the run, of a part of it such as its baseline, or of a checkpoint file. Raises UserError as `saved_config`
    does.
    """
    saved = saved_config(owner(path), trust)
    parts = {name: saved.get(name) for name in names}
    return {name: OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part
            for name, part in parts.items()}  # fmt: skip


def owner(path: Path) -> Path:
    """The folder of the run that a part of it, such as its baseline, or a checkpoint file belongs to."""
    folder = path.parent.parent if path.is_file() else path
    return folder.parent if folder.name in PARTS and not (folder / ".hydra").is_dir() else folder


def choices(folder: Path) -> dict[str, str]:
    """The options of our groups that a run was started with, own ones among them."""
    try:
        found = reading.read_yaml(folder / ".hydra" / "hydra.yaml")["hydra"]["runtime"]["choices"].items()
    except (UserError, KeyError, TypeError, AttributeError):
        return {}
    # What is no plain name would be a path to somebody's file.
    return {
        group: option
        for group, option in found
        if group in GROUPS and isinstance(option, str) and re.fullmatch(r"[\w-]+", option)
    }
