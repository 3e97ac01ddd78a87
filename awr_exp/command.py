"""What a command line means to Hydra and to us: its mistakes in one line, and runs that it goes on with."""

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from awr_exp import arguments, results, shell
from awr_exp.config import GROUPS, SWEEPS, choices, options, saved_config, to_resume
from awr_exp.errors import UserError
from awr_exp.settings import check

log = logging.getLogger(__name__)

NAME_LENGTH = 128
"""What W&B takes as the name of a run."""

HYDRA = ".hydra"
"""Where in its folder a run keeps the configuration that it was started with."""

PARTS = (
    "agent", "advantage", "weighting", "network", "head", "optimizer", "dataset", "env", "trainer", "schedule",
    "baseline", "logger",
)  # fmt: skip
"""Groups that a configuration has under their own names."""

PLUGINS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "ray"}
"""Hydra's published launchers, and the extra that brings each."""


def check_arguments(arguments: Sequence[str]) -> None:
    """End with one line for options that are not there and launchers not installed, where Hydra writes a page."""
    for before, argument in pairwise(["", *arguments]):
        if before in ("-p", "--package"):
            continue
        group, _, option = argument.lstrip("+").partition("=")
        plugin = f"hydra_plugins.hydra_{option.partition('_')[0]}_launcher"
        if group == "hydra/launcher" and option in PLUGINS and not _installed(plugin):
            sys.exit(f"error: {argument} is not installed: pip install 'awr-exp[{PLUGINS[option]}]'")
        known = options(group) if group in GROUPS else []
        if known and option in ("null", ""):
            sys.exit(f"error: {argument}: choose {group}=<one of {', '.join(known)}> or leave it out")


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its parent
        return False


@contextmanager
def plain_errors() -> Iterator[None]:
    """End with what is wrong with a command line, and no more; HYDRA_FULL_ERROR=1 asks for Hydra's traceback."""
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        yield
        return
    # Else it prints them itself.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    except CompactHydraException as error:
        sys.exit(f"error: {said(error).removeprefix('error: ')}")
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def said(error: Exception) -> str:
    """What Hydra says, in one line, but for its advice on `+`."""
    text, cause = str(error), error.__cause__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_such_option(error)
    if (name := re.match("Could not override '(.+)'", text)) and isinstance(
        cause, ConfigAttributeError | ConfigKeyError
    ):
        return f"there is no {name[1]} with the options that are chosen: --cfg job shows what there is"
    if name := re.match("Could not append to config. An item is already at '(.+)'", text):
        return f"{name[1]} is a setting already: leave out the +"
    told = f"{text} {cause}" if isinstance(cause, OmegaConfBaseException) else text
    return " ".join(told.split())


def _no_such_option(error: MissingConfigException) -> str:
    """What is missing, by the name that the user wrote, and what there is: own options, too."""
    group, _, option = str(error.missing_cfg_file).removesuffix(".yaml").rpartition("/")
    where = re.match("In '(.+?)'", str(error))
    told = f"{where[1]}.yaml: " if where and where[1] != "config" else ""
    if not group:
        return f"{told}there is no configuration {option}"
    if not error.options:
        return f"{told}{group}={option}: there is no such option, nor any other of {group}"
    return f"{told}{group}={option}: choose {group}=<one of {', '.join(error.options)}> or leave it out"


def resumed(cfg: DictConfig) -> DictConfig:
    """The configuration of the run to continue, changed by what else the command line names; or cfg itself."""
    if cfg.resume is None:
        return cfg
    saved = saved_config(Path(cfg.resume), cfg.trust)
    saved.resume, saved.trust = cfg.resume, cfg.trust
    for key in _changes(Path(cfg.resume)):
        if key == "experiment":
            raise UserError("an experiment cannot be chosen for a run that is resumed: name the values to change")
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    return saved


def _changes(folder: Path) -> dict[str, str]:
    """The overrides of a command line, by what they change, that differ from the options of the run to continue."""
    chosen, changes = choices(folder), {}
    for override in HydraConfig.get().overrides.task:
        key = shell.key(override).partition("@")[0]
        if key not in ("resume", "trust") and (key not in chosen or chosen[key] != arguments.value(override)):
            changes[key] = override
    return changes


def to_go_on(folder: Path, cfg: DictConfig, content: Any) -> str:
    """The command that goes on with a run as it is now."""
    return to_resume(folder, content, _changes(folder).values() if cfg.resume else ())


def check_same(folder: Path, overrides: Iterable[str], cfg: DictConfig) -> None:
    """Raises UserError if another run lies in the folder: it would go on as what it is not."""
    if not results.begun(folder):
        return
    folder = folder.absolute()
    hint = "give the same command to go on with it, or choose another folder"
    try:
        saved: Any = OmegaConf.to_container(OmegaConf.load(folder / HYDRA / "config.yaml"))
        before = _settings(saved)
    except Exception:
        raise UserError(f"{folder} holds a run whose configuration is not there: choose another folder") from None
    now = _settings(OmegaConf.to_container(cfg))
    name = next((name for name in sorted(now | before) if now.get(name) != before.get(name)), None)
    if name is None:
        return
    was = results.overrides(folder)
    if was is not None and was != results.parsed(overrides):
        said = " ".join(f"{key}={value}" for key, value in was.items()) or "the defaults"
        raise UserError(f"{folder} was started as {said}: {hint}")
    raise UserError(f"{folder} was started with {name}={before.get(name)}, not {now.get(name)}: {hint}")


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
    of where the command was typed.
    """
    with read_write(config), open_dict(config):
        for name in ("seed", "device", "threads", "resume", "resume_policy", "objective", *PARTS):
            config.setdefault(name, None)
        config.setdefault("trust", [])
        config.sweep.setdefault("resume", None)
    hydra = config.hydra
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


def forget(folder: Path) -> None:
    """Remove the folder of a run that was never begun, if this process made it."""
    if folder not in _new or results.begun(folder) or {path.suffix for path in folder.iterdir()} - {"", ".log"}:
        return
    with suppress(OSError):
        shutil.rmtree(folder)
        for parent in _new[1:]:
            parent.rmdir()


@cache
def _say(text: str) -> None:
    log.warning(text)


class Check(Callback):
    """Ends a single run with one line before it has a folder, if its configuration is wrong."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)
        place = config.hydra.run.dir
        settle(config)
        task: Any = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            if task.sweep.resume is not None:
                raise UserError("sweep.resume goes on with a sweep: add -m and the values that it was started with")
            if task.resume is not None:
                typed = any(shell.key(one) == "hydra.run.dir" for one in config.hydra.overrides.hydra)
                if typed and Path(place).resolve() != Path(task.resume).resolve():
                    raise UserError("a run that is resumed goes on in its own folder: leave out hydra.run.dir")
                check(resumed(task))
            else:
                check(task)
                check_same(Path(place), config.hydra.overrides.task, task)
                path = Path(place).absolute()
                _new[:] = [folder for folder in (path, *path.parents) if not folder.exists()]
        except UserError as error:
            sys.exit(f"error: {error}")


def content(cfg: DictConfig) -> dict[str, Any]:
    """The values of a task's configuration, checked as by `check`.

    The W&B runs of a sweep that have no group and name of their own get those of W&B's environment variables, its
    folder and what they override.
    """
    check(cfg)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    if values["resume_policy"]:
        # Where the group trains, paths may begin elsewhere.
        values["resume_policy"] = str(Path(values["resume_policy"]).absolute())
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        hydra, known = HydraConfig.get(), os.environ.get
        # It is of one run: its jobs would all be logged into that.
        os.environ.pop("WANDB_RUN_ID", None)
        for node in (values.get("logger") or {}).values():
            if "group" in node and "name" in node:
                sweep = "/".join(Path(hydra.sweep.dir).absolute().parts[-2:])
                name = " ".join(filter(None, (known("WANDB_NAME"), hydra.job.override_dirname)))
                node["group"] = node["group"] or known("WANDB_RUN_GROUP") or sweep
                node["name"] = node["name"] or name[:NAME_LENGTH] or None
    return dict(values)


def register() -> None:
    """Teach Hydra our sweeps and the values of the configuration that depend on how it was called."""
    # Not by a search path: that would offer the W&B sweeps beside them as configurations, too.
    for path in (SWEEPS / "sweep").glob("*.yaml"):
        ConfigStore.instance().store(path.name, OmegaConf.load(path), "sweep", "_global_", "awr_exp")
    # A new folder a run, to the microsecond: two runs in one second must not share one.
    OmegaConf.register_new_resolver(
        "folder",
        lambda resume, kind: resume or f"outputs/{kind}/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}",
        replace=True,
        use_cache=True,
    )
