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
from awr_exp.errors import UserError, unwritable
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
    if difference := _difference(folder.absolute(), overrides, cfg):
        # The folder is not this process's to remove, even if it has made it.
        _new.clear()
        raise UserError(difference)


def _difference(folder: Path, overrides: Iterable[str], cfg: DictConfig) -> str | None:
    """In what the run that is kept in the folder differs from this one, or None where it is the same."""
    try:
        changes = _changes(read_yaml(folder / HYDRA / "config.yaml"), cfg, overrides)
    except (UserError, AttributeError):
        return f"{folder} holds a run whose configuration is not there: choose another folder"
    if not changes:
        return None
    hint = "give the same command to go on with it, or choose another folder"
    was = results.overrides(folder)
    if was is not None and was != results.parsed(overrides):
        said = " ".join(f"{key}={value}" for key, value in was.items()) or "the defaults"
        return f"{folder} was started as {said}: {hint}"
    name, (before, now) = next(iter(changes.items()))
    return f"{folder} was started with {name}={before}, not {now}: {hint}"


def _changes(before: Any, cfg: DictConfig, overrides: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """The settings that make another run of a configuration, with their values before and now.

    One that the configuration before has no place for is of a later version, and makes no other run unless it is among
    the overrides.
    """
    was, now, known = _settings(before), _settings(OmegaConf.to_container(cfg)), results.leaves(before)
    typed = results.parsed(overrides)
    changed = [name for name in sorted(was | now) if was.get(name) != now.get(name)]
    return {
        name: (was.get(name), now.get(name))
        for name in changed
        if any(place in known or place in typed for place in _places(name))
    }


def _places(name: str) -> list[str]:
    """A dotted name and the places that it is in."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _settings(content: Any) -> dict[str, Any]:
    """The values that make a run what it is, by dotted name and as they are written."""
    found = results.leaves(content).items()
    others = ("resume", "sweep", "trust")
    return {name: value for name, value in found if value is not None and name.partition(".")[0] not in others}


def task(cfg: DictConfig) -> Any:
    """A configuration without Hydra's part."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def settle(config: DictConfig) -> None:
    """Settle what a run relies on, whatever a command line or somebody's yaml says of it.

    What was deleted (~dataset) is null. A run that goes on is in its own folder, and keeps the configuration that it
    was started with; that of a new one lies where resume, reports and the next command look for it. Paths stay those
    of where the command was typed. Raises UserError where it goes on with what cannot be a folder.
    """
    with read_write(config), open_dict(config):
        config.setdefault("trust", [])
        # By its keys alone: to look a value up is to resolve it.
        known = {*config}
        for name in (*RUN, *kinds(CONF)[""].parts):
            if name not in known:
                config[name] = None
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


AFTERWARDS = ("evaluate", "logger", "objective", "device", "threads")
"""What may be given to a run that has ended."""
_new: list[Path] = []
"""The folders that this process has made for its run, the run's own first."""


def forget(folder: Path) -> None:
    """Remove the folder of a run that was never begun, if this process made it."""
    if folder not in _new or results.begun(folder) or {path.suffix for path in folder.iterdir()} - {"", ".log"}:
        return
    with suppress(OSError):
        shutil.rmtree(folder)
        for parent in _new[1:]:
            parent.rmdir()


def note_changes(folder: Path, overrides: Iterable[str], cfg: DictConfig) -> None:
    """Keep which settings a run that is resumed has changed: what it was started with no longer says what it is.

    Where nothing is left to learn, say which of them have no effect.
    """
    known = results.changed(folder)
    before = OmegaConf.to_container(saved_config(folder, cfg.trust))
    changes = {name: str(now) for name, (_, now) in _changes(before, cfg, overrides).items()}
    if results.finished(results.read(folder), task(cfg)):
        idle = [name for name in changes if name not in known and name.partition(".")[0] not in AFTERWARDS]
        if idle:
            said = " ".join(f"{name}={changes.pop(name)}" for name in idle)
            log.warning("warning: the run has ended, and %s changes nothing: to go on, make it longer, too", said)
    if lost := [f"{name}={value}" for name, value in known.items() if name not in changes]:
        log.warning("it was resumed with %s before, and now without: give that again to keep it", " ".join(lost))
    if changes.keys() - known.keys():
        results.atomic_write(folder / results.CHANGED, yaml.safe_dump(known | changes).encode())


@cache
def _say(text: str) -> None:
    log.warning(text)


def make_folder(folder: Path, setting: str) -> None:
    """Make a folder, if it is not there. Raises UserError, which names the setting, where it cannot be written."""
    path = folder.absolute()
    _new[:] = [one for one in (path, *path.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise unwritable(folder, error, f"choose another {setting}") from None
