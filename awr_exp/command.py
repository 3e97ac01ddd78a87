"""What a command line means to us: its mistakes in one line, and runs that it goes on with."""

import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from awr_exp import arguments, help, results, shell
from awr_exp.config import GROUPS, SWEEPS, choices, options, saved_config, to_resume
from awr_exp.errors import UserError
from awr_exp.reading import check_links, read_yaml
from awr_exp.settings import check, check_origin, surplus
from awr_exp.vocabulary import near

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


def check_command(arguments: Sequence[str]) -> None:
    """End with one line for a subcommand that is not there."""
    first = arguments[0] if arguments else ""
    if re.fullmatch(r"[^\W\d][\w-]*", first):
        others = f"{', '.join(help.SUBCOMMANDS[:-1])} and {help.SUBCOMMANDS[-1]}"
        sys.exit(
            f"error: there is no command '{first}': there are {others}, and settings such as agent.beta=0.05"
            f"{near(first, help.SUBCOMMANDS)}"
        )


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
        before = _settings(read_yaml(folder / HYDRA / "config.yaml"))
    except (UserError, AttributeError):
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


def make_folder(folder: Path, setting: str) -> None:
    """Raises UserError, which names the setting, where a folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}; choose another {setting}") from None


class Check(Callback):
    """Ends a single run with one line before it has a folder, if its configuration is wrong."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)
        place, given = config.hydra.run.dir, config.hydra.overrides.task
        try:
            check_origin(config)
            settle(config)
            task: Any = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
            folder = Path(config.hydra.run.dir)
            check_links(folder)
            if task.sweep.resume is not None:
                raise UserError("sweep.resume goes on with a sweep: add -m and the values that it was started with")
            if task.resume is not None:
                typed = any(shell.key(one) == "hydra.run.dir" for one in config.hydra.overrides.hydra)
                if typed and Path(place).resolve() != folder.resolve():
                    raise UserError("a run that is resumed goes on in its own folder: leave out hydra.run.dir")
                check(resumed(task), given)
            else:
                check(task, given)
                check_same(folder, given, task)
                path = folder.absolute()
                _new[:] = [one for one in (path, *path.parents) if not one.exists()]
            make_folder(folder, "hydra.run.dir")
        except UserError as error:
            sys.exit(f"error: {error}")


def content(cfg: DictConfig) -> dict[str, Any]:
    """The values of a task's configuration, checked as by `check`.

    The W&B runs of a sweep that have no group and name of their own get those of W&B's environment variables, its
    folder and what they override.
    """
    idle = surplus(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    values = check(cfg, HydraConfig.get().overrides.task)
    if idle:
        log.info("left out, since the chosen options do not have them: %s", ", ".join(idle))
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
        # Whatever is no folder's name is refused by whoever goes on with it.
        lambda resume, kind: str(resume) if resume else f"outputs/{kind}/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}",
        replace=True,
        use_cache=True,
    )
    OmegaConf.register_new_resolver("help", help.text, replace=True)
