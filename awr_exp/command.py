"""What a command line means to us: its mistakes in one line, and runs that it goes on with."""

import logging
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from awr_exp import arguments, help, messages, run_folder, shell
from awr_exp.config import SWEEPS, choices, saved_config, to_resume
from awr_exp.errors import UserError
from awr_exp.reading import check_links
from awr_exp.settings import check, checked

log = logging.getLogger(__name__)

NAME_LENGTH = 128
"""The most characters that W&B takes as the name of a run."""


def check_complete(hydra: Any) -> None:
    """Raises UserError where somebody's own configuration stands in for ours and leaves out what every run needs."""
    if "check" not in hydra.callbacks:
        raise UserError(
            f"the configuration {hydra.job.config_name} has no hydra.callbacks.check, which makes a run's folder one: "
            "keep the part hydra of our config.yaml, or begin yours with defaults: [config, _self_]"
        )


def resumed(cfg: DictConfig) -> DictConfig:
    """The configuration of the run to continue, changed by what else the command line names; or cfg itself."""
    if cfg.resume is None:
        return cfg
    saved = saved_config(Path(cfg.resume), cfg.trust)
    saved.resume, saved.trust = cfg.resume, cfg.trust
    for key in _given(cfg):
        if key == "experiment":
            raise UserError("an experiment cannot be chosen for a run that is resumed: name the values to change")
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    return saved


def _given(cfg: DictConfig) -> dict[str, str]:
    """The overrides of the command line, by what they change, without the options that a run to continue has anyway."""
    chosen, given = choices(Path(cfg.resume)) if cfg.get("resume") else {}, {}
    for override in HydraConfig.get().overrides.task:
        key = shell.key(override).partition("@")[0]
        if key not in ("resume", "trust") and (key not in chosen or chosen[key] != arguments.value(override)):
            given[key] = override
    return given


def to_go_on(folder: Path, cfg: DictConfig) -> str:
    """The command that goes on with a run as it is now."""
    return to_resume(folder, _given(cfg).values() if cfg.resume else ())


class Check(Callback):
    """Ends a single run with one line before it has a folder, if its configuration is wrong."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        HydraConfig.instance().set_config(config)
        try:
            place = config.hydra.run.dir
            run_folder.settle(config)
            task = run_folder.task(config)
            folder = Path(config.hydra.run.dir)
            check_links(folder)
            if task.sweep.resume is not None:
                raise UserError("sweep.resume goes on with a sweep: add -m and the values that it was started with")
            typed = any(shell.key(one) == "hydra.run.dir" for one in config.hydra.overrides.hydra)
            if task.resume is not None and typed and Path(place).resolve() != folder.resolve():
                raise UserError("a run that is resumed goes on in its own folder: leave out hydra.run.dir")
            check(resumed(task), _given(task).values())
            if task.resume is None:
                run_folder.check_same(folder, config.hydra.overrides.task, task)
            run_folder.make_folder(folder, "hydra.run.dir")
        except (UserError, OmegaConfBaseException) as error:
            sys.exit(f"error: {messages.said(error)}")


def content(cfg: DictConfig) -> dict[str, Any]:
    """The values of a task's configuration, checked as by `check`.

    The W&B runs of a sweep that have no group and name of their own get those of W&B's environment variables, its
    folder and what they override.
    """
    values, idle = checked(cfg, _given(cfg).values())
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
    return values


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
