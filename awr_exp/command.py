"""What a command line means to Hydra and to us: its mistakes in one line, and runs that it goes on with."""

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from awr_exp import help, results
from awr_exp.config import GROUPS, SWEEPS, choices, options, saved_config, to_resume
from awr_exp.errors import UserError
from awr_exp.reading import check_links
from awr_exp.settings import check, check_origin, surplus
from awr_exp.vocabulary import names, near

log = logging.getLogger(__name__)

NAME_LENGTH = 128
"""What W&B takes as the name of a run."""

PLUGINS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "ray"}
"""Hydra's published launchers, and the extra that brings each."""


def check_arguments(arguments: Sequence[str]) -> None:
    """End with one line for options that are not there and launchers not installed, where Hydra writes a page."""
    first = arguments[0] if arguments else ""
    if re.fullmatch(r"[^\W\d][\w-]*", first):
        others = f"{', '.join(help.SUBCOMMANDS[:-1])} and {help.SUBCOMMANDS[-1]}"
        sys.exit(
            f"error: there is no command '{first}': there are {others}, and settings such as agent.beta=0.05"
            f"{near(first, help.SUBCOMMANDS)}"
        )
    elsewhere = any(argument.startswith(("--config-dir", "-cd", "hydra.searchpath")) for argument in arguments)
    for before, argument in pairwise(["", *arguments]):
        if before in ("-p", "--package"):
            continue
        group, _, option = argument.lstrip("+").partition("=")
        plugin = f"hydra_plugins.hydra_{option.partition('_')[0]}_launcher"
        if group == "hydra/launcher" and option in PLUGINS and not _installed(plugin):
            sys.exit(f"error: {argument} is not installed: pip install 'awr-exp[{PLUGINS[option]}]'")
        known = options(group) if group in GROUPS else []
        # Own ones may lie elsewhere; what is no plain name is Hydra's to understand.
        unknown = [name for name in option.split(",") if re.fullmatch(r"\w+", name) and name not in known]
        if known and (option in ("null", "") or (unknown and not elsewhere)):
            close = near(unknown[0], known) if unknown else ""
            sys.exit(f"error: {argument}: choose {group}=<one of {', '.join(known)}> or leave it out{close}")


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
    except (CompactHydraException, OmegaConfBaseException) as error:
        sys.exit(f"error: {said(error).removeprefix('error: ')}")
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def said(error: Exception) -> str:
    """What Hydra says, in one line, but for its advice on `+`."""
    text, cause = str(error), error.__cause__
    if (name := re.match("Could not override '(.+)'", text)) and isinstance(
        cause, ConfigAttributeError | ConfigKeyError
    ):
        return _no_setting(name[1])
    if option := re.search(r"Could not find '([\w/]+)/([^/']+)'\s+Available options in .*?:\n((?:\t.*\n?)*)", text):
        there = option[3].split()
        return f"{option[1]}={option[2]}: choose one of {', '.join(there)}{near(option[2], there)}"
    if name := re.match("Could not delete from config. '(.+)' does not exist", text):
        return _no_setting(name[1])
    if word := re.match(r"LexerNoViableAltException: (.+)", text):
        return f"{word[1]} cannot be read: put its value into quotes, which the shell must not take away: \"a='b c'\""
    if word := re.match(r"Error parsing override '([^'=]+)'\s+missing EQUAL", text):
        return f"'{word[1]}' is no setting: write name=value, such as agent.beta=0.05"
    if name := re.match("Could not append to config. An item is already at '(.+)'", text):
        return f"{name[1]} is a setting already: leave out the +"
    told = f"{text} {cause}" if isinstance(cause, OmegaConfBaseException) else text
    told = re.sub(r"full_key: .*", "", told, flags=re.DOTALL).partition("See https://hydra.cc")[0]
    return " ".join(told.split())


def _no_setting(name: str) -> str:
    """What is said of a name that is not there: where it is, or what was meant."""
    there = names().get(name.lstrip("+~"))
    if there:
        return f"there is no {name} with the options that are chosen: it is a setting of {', '.join(there)}"
    return f"there is no {name} with the options that are chosen{near(name, names()) or ': --help lists them'}"


def choices_to_resume(arguments: Iterable[str]) -> list[str]:
    """The options of the run to continue that a command line does not name: all its settings can then be changed."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if "resume" not in given:
        return []
    found = choices(Path(given["resume"]))
    return [f"{group}={option}" for group, option in found.items() if group not in given and group != "experiment"]


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
        key, _, value = override.lstrip("+~").partition("=")
        key = key.partition("@")[0]
        if chosen.get(key) != value and key not in ("resume", "trust"):
            changes[key] = override
    return changes


def to_go_on(folder: Path, cfg: DictConfig, content: Any) -> str:
    """The command that goes on with a run as it is now."""
    return to_resume(folder, content, _changes(folder).values() if cfg.resume else ())


def check_same(folder: Path, overrides: Iterable[str]) -> None:
    """Raises UserError if a run of other overrides lies in the folder: it would go on as what it is not."""
    before = results.overrides(folder)
    if before is not None and before != results.parsed(overrides):
        was = " ".join(f"{key}={value}" for key, value in before.items()) or "the defaults"
        raise UserError(
            f"{folder} was started as {was}: give the same command to go on with it, or choose another folder"
        )


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
        task: Any = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            check_origin(task)
            if task.sweep.resume is not None:
                raise UserError("sweep.resume goes on with a sweep: add -m and the values that it was started with")
            for folder in {config.hydra.run.dir, task.resume} - {None}:
                check_links(Path(folder))
            if task.resume is not None:
                # What the options of its groups leave open, such as env.id, it says itself.
                task = OmegaConf.merge(saved_config(Path(task.resume), task.trust), task)
            check(task, config.hydra.overrides.task)
            folder = Path(config.hydra.run.dir)
            if task.resume is None:
                check_same(folder, config.hydra.overrides.task)
            make_folder(folder, "hydra.run.dir")
        except UserError as error:
            sys.exit(f"error: {error}")


def content(cfg: DictConfig) -> dict[str, Any]:
    """The values of a task's configuration, checked as by `check`.

    The W&B runs of a sweep that have no group and name of their own get its folder and what they override.
    """
    idle = surplus(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    values = check(cfg, HydraConfig.get().overrides.task)
    if idle:
        log.info("left out, since the chosen options do not have them: %s", ", ".join(idle))
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        hydra = HydraConfig.get()
        for node in (values.get("logger") or {}).values():
            if "group" in node and "name" in node:
                node["group"] = node["group"] or "/".join(Path(hydra.sweep.dir).parts[-2:])
                node["name"] = node["name"] or hydra.job.override_dirname[:NAME_LENGTH] or None
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
    # A continued run keeps the configuration it was started with.
    OmegaConf.register_new_resolver("hydra_subdir", lambda resume: None if resume else ".hydra", replace=True)
