"""The folder of a run before it is one: whose it is, where it is, and that it can be written."""

import logging
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from awr_exp import arguments, ranges, results, shell
from awr_exp.config import CONF, saved_config
from awr_exp.errors import UserError
from awr_exp.reading import read_yaml
from awr_exp.settings import FOLDER, check_origin
from awr_exp.vocabulary import RUN, kinds

log = logging.getLogger(__name__)

HYDRA = ".hydra"
"""Where in its folder a run keeps the configuration that it was started with."""


def check_same(folder: Path, overrides: Iterable[str], cfg: DictConfig) -> None:
    """Raises UserError if another run lies in the folder: it would go on as what it is not."""
    if results.begun(folder):
        check_kept(folder, overrides, cfg)


def check_kept(folder: Path, overrides: Iterable[str], cfg: DictConfig) -> None:
    """Raises UserError if the configuration that is kept in the folder is not this one."""
    folder = folder.absolute()
    hint = "give the same command to go on with it, or choose another folder"
    try:
        before = _settings(read_yaml(folder / HYDRA / "config.yaml"))
    except (UserError, AttributeError):
        raise _of_others(f"{folder} holds a run whose configuration is not there: choose another folder") from None
    now = _settings(OmegaConf.to_container(cfg))
    name = next((name for name in sorted(now | before) if now.get(name) != before.get(name)), None)
    if name is None:
        return
    was = results.overrides(folder)
    if was is not None and was != results.parsed(overrides):
        said = " ".join(f"{key}={value}" for key, value in was.items()) or "the defaults"
        raise _of_others(f"{folder} was started as {said}: {hint}")
    raise _of_others(f"{folder} was started with {name}={before.get(name)}, not {now.get(name)}: {hint}")


def _of_others(text: str) -> UserError:
    """The folder is not this process's to remove, even if it has made it."""
    _new.clear()
    return UserError(text)


def _settings(node: Any, prefix: str = "") -> dict[str, Any]:
    """By dotted name, as they are written: all that makes a run what it is."""
    found: dict[str, Any] = {}
    for name, value in node.items():
        if isinstance(value, dict) and value:
            found |= _settings(value, f"{prefix}{name}.")
        elif value not in (None, {}) and f"{prefix}{name}".partition(".")[0] not in ("resume", "sweep", "trust"):
            found[prefix + name] = value
    return found


def settle(config: DictConfig) -> None:
    """Settle what a run relies on, whatever a command line or somebody's yaml says of it.

    What was deleted (~dataset) is null. A run that goes on is in its own folder, and keeps the configuration that it
    was started with; that of a new one lies where resume, reports and the next command look for it. Paths stay those
    of where the command was typed. Raises UserError where it goes on with what cannot be a folder.
    """
    with read_write(config), open_dict(config):
        config.setdefault("trust", [])
        for name in (*RUN, *kinds(CONF)[""].parts):
            config.setdefault(name, None)
        config.sweep.setdefault("resume", None)
    check_origin(config)
    hydra = config.hydra
    for one in hydra.overrides.hydra:
        if shell.key(one) in ("hydra.run.dir", "hydra.sweep.dir"):
            ranges.check(shell.key(one), arguments.value(one), FOLDER)
    with read_write(hydra), open_dict(hydra):
        if hydra.job.chdir:
            _say("hydra.job.chdir has no effect: paths are those of where the command was typed")
        hydra.job.chdir = False
        hydra.output_subdir = None if config.resume else HYDRA
        if config.resume:
            hydra.run.dir = config.resume
        if config.sweep.resume:
            hydra.sweep.dir = config.sweep.resume


_new: list[Path] = []
"""The folders that this process makes for its run, the run's own first."""


def expect(folder: Path) -> None:
    """Remember which folders have to be made for this one, for `forget`."""
    path = folder.absolute()
    _new[:] = [one for one in (path, *path.parents) if not one.exists()]


def forget(folder: Path) -> None:
    """Remove the folder of a run that was never begun, if this process made it."""
    if folder not in _new or results.begun(folder) or {path.suffix for path in folder.iterdir()} - {"", ".log"}:
        return
    with suppress(OSError):
        shutil.rmtree(folder)
        for parent in _new[1:]:
            parent.rmdir()


def note_changes(folder: Path, cfg: DictConfig) -> None:
    """Keep which settings a run that is resumed has changed: what it was started with no longer says what it is."""
    was = _settings(OmegaConf.to_container(saved_config(folder, cfg.trust)))
    now, known = _settings(OmegaConf.to_container(cfg)), results.changed(folder)
    changes = {name: str(now.get(name)) for name in sorted(now | was) if now.get(name) != was.get(name)}
    if lost := [f"{name}={value}" for name, value in known.items() if name not in changes]:
        log.warning("it was resumed with %s before, and now without: give that again to keep it", " ".join(lost))
    if changes.keys() - known.keys():
        results.atomic_write(folder / results.CHANGED, yaml.safe_dump(known | changes).encode())


@cache
def _say(text: str) -> None:
    log.warning(text)


def make_folder(folder: Path, setting: str) -> None:
    """Raises UserError, which names the setting, where a folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}; choose another {setting}") from None
