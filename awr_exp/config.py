"""Where configurations lie, and what one from a file may call. Nothing here imports torch."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from awr_exp import shell
from awr_exp.errors import UserError, first_line

PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    """The checkout's folder, or the one that travelled in the wheel."""
    checkout = PACKAGE.parent / name
    return checkout if (PACKAGE.parent / "pyproject.toml").exists() and checkout.is_dir() else PACKAGE / f"_{name}"


CONF, SWEEPS = _folder("conf"), _folder("sweeps")

GROUPS = frozenset(path.name for path in CONF.iterdir() if path.is_dir())


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@cache
def known_targets() -> frozenset[str]:
    """Every `_target_` that a shipped yaml names: what a configuration from a file may instantiate."""
    return frozenset(
        target
        for path in CONF.rglob("*.yaml")
        for target in re.findall(r"^\s*_target_:\s*(\S+)\s*$", path.read_text(), re.MULTILINE)
    )


def check_trusted(content: Any, origin: Path, trust: Iterable[str] = ()) -> None:
    """Refuse with UserError what a resolved configuration from a file would call beyond our own parts and `trust`."""
    for name, what in _foreign(content):
        if name is None:
            raise UserError(f"{origin} {what}: not trusted")
        if name not in trust:
            raise UserError(f"{origin} {what}; if it is yours, {shell.words(shell.override('trust', [name]))}")


def _foreign(content: Any) -> Iterator[tuple[str | None, str]]:
    """What a resolved configuration would call or import beyond our own parts: its name, if it has one, and how."""
    # Here, since gymnasium would double what --help takes.
    from awr_exp.envs.make import foreign_module

    if isinstance(content, dict):
        target = content.get("_target_")
        if target is not None and target not in known_targets():
            yield target, f"wants to call '{target}', which is not a part of awr_exp"
        module = foreign_module(str(content.get("id", "")))
        if module:
            yield module, f"wants to import '{module}' for its environment"
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _foreign(value)
    elif isinstance(content, str) and "${" in content:
        # What it resolves to later could be anything.
        yield None, f"holds '{content}', which is not a plain value"


def to_resume(folder: Path, content: Any, changes: Iterable[str] = ()) -> str:
    """The command that goes on with a run of this configuration; changes: overrides of those it was started with."""
    names = sorted({name for name, _ in _foreign(content) if name})
    trust = [shell.override("trust", names)] if names else []
    return shell.command(shell.override("resume", folder), *changes, *trust)


def saved_config(folder: Path, trust: Iterable[str]) -> DictConfig:
    """The configuration that a run was started with. Raises UserError if it is missing or not trusted."""
    path = folder / ".hydra" / "config.yaml"
    try:
        cfg = OmegaConf.load(path)
        content = OmegaConf.to_container(cfg, resolve=True)
    except FileNotFoundError:
        raise UserError(f"{folder} is not the folder of a run: it has no .hydra/config.yaml") from None
    except Exception as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path} cannot be read: it is not a mapping")
    check_trusted(content, path, trust)
    return cfg


def choices(folder: Path) -> dict[str, str]:
    """The options of our groups that a run was started with, own ones among them."""
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "hydra.yaml"))
        found = content["hydra"]["runtime"]["choices"].items()
    except Exception:
        return {}
    return {group: option for group, option in found if group in GROUPS}
