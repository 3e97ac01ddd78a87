"""What must be known of a configuration before anything heavy is imported: where it lies and whether it is right.

One name means one thing everywhere, so one table holds the range of every setting. Nothing here imports torch:
a mistake is answered in a fraction of a second.
"""

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from awr_exp import results
from awr_exp.errors import UserError, first_line

PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    """The checkout's folder, or the one that travelled in the wheel."""
    checkout = PACKAGE.parent / name
    return checkout if (PACKAGE.parent / "pyproject.toml").exists() and checkout.is_dir() else PACKAGE / f"_{name}"


CONF, SWEEPS = _folder("conf"), _folder("sweeps")

Rule = tuple[Callable[[Any], bool], str]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _choice(*names: Any) -> Rule:
    # `in` alone would take 1 for true.
    return (
        lambda v: any(type(v) is type(name) and v == name for name in names),
        f"one of {', '.join(str(name).lower() for name in names)}",
    )


def _optional(rule: Rule) -> Rule:
    return lambda v: v is None or rule[0](v), f"{rule[1]}, or null"


POSITIVE: Rule = (lambda v: _number(v) and v > 0, "a positive, finite number")
NOT_NEGATIVE: Rule = (lambda v: _number(v) and v >= 0, "a number of at least 0")
UNIT: Rule = (lambda v: _number(v) and 0 <= v <= 1, "a number from 0 to 1")
COUNT: Rule = (lambda v: _integer(v) and v >= 1, "a whole number of at least 1")
WHOLE: Rule = (lambda v: _integer(v) and v >= 0, "a whole number of at least 0")
FLAG: Rule = (lambda v: isinstance(v, bool), "true or false")
TEXT: Rule = (lambda v: isinstance(v, str) and v != "", "a text")

RULES: dict[str, Rule] = {
    "beta": (POSITIVE[0], "a positive, finite number: it divides the advantage"),
    "max_weight": (lambda v: _number(v) and v >= 1, "a finite number of at least 1"),
    "gamma": UNIT,
    "lam": UNIT,
    "n": COUNT,
    "value_iters": COUNT,
    "actor_iters": COUNT,
    "actor_lr": POSITIVE,
    "critic_lr": POSITIVE,
    "standardize_advantages": FLAG,
    "normalize_observations": FLAG,
    "normalize_values": FLAG,
    "bound_penalty": NOT_NEGATIVE,
    "logit_penalty": NOT_NEGATIVE,
    "max_grad_norm": _optional(POSITIVE),
    "hidden": (
        lambda v: isinstance(v, list) and len(v) > 0 and all(_integer(width) and width >= 1 for width in v),
        "a list of widths such as [256, 256]",
    ),
    "activation": _choice("relu", "tanh", "elu", "gelu", "silu"),
    "init": _choice("orthogonal", "lecun", "kaiming", "xavier"),
    "layer_norm": FLAG,
    "input_scale": POSITIVE,
    "output_scale": POSITIVE,
    "critic_output_scale": _optional(POSITIVE),
    "std": (
        lambda v: v in ("state_independent", "state_dependent") or POSITIVE[0](v),
        "state_independent, state_dependent or a positive number",
    ),
    "std_end": POSITIVE,
    "id": TEXT,
    "download": FLAG,
    "top_percent": _optional((lambda v: _number(v) and 0 < v <= 100, "a number above 0 and up to 100")),
    "reward_scale": POSITIVE,
    "max_transitions": _optional(COUNT),
    "vectorized": FLAG,
    "clip_actions": FLAG,
    "kwargs": (lambda v: isinstance(v, dict), "a mapping"),
    "updates": COUNT,
    "env_steps": COUNT,
    "envs": COUNT,
    "workers": WHOLE,
    "replay_size": COUNT,
    "overlap": FLAG,
    "samples_per_iteration": COUNT,
    "critic_steps": COUNT,
    "actor_steps": COUNT,
    "normalizer_samples": COUNT,
    "learning_starts": WHOLE,
    "update_interval": COUNT,
    "batch_size": COUNT,
    "refresh_interval": COUNT,
    "report_interval": COUNT,
    "eval_interval": COUNT,
    "eval_episodes": COUNT,
    "checkpoint_interval": COUNT,
    "compile": _choice("auto", True, False),
    "project": TEXT,
    "entity": _optional(TEXT),
    "group": _optional(TEXT),
    "job_type": _optional(TEXT),
    "name": _optional(TEXT),
    "tags": (lambda v: isinstance(v, list) and all(isinstance(tag, str) for tag in v), "a list of texts"),
    "mode": _choice("auto", "online", "offline", "disabled"),
    "log_checkpoint": FLAG,
    "log_curves": FLAG,
    "seed": (lambda v: _integer(v) and v >= 0, "a whole number of at least 0"),
    "device": (
        lambda v: isinstance(v, str) and re.fullmatch(r"auto|cpu|cuda(:\d+)?", v) is not None,
        "auto, cpu, cuda or cuda:<number>",
    ),
    "threads": _optional(COUNT),
    "dataset_id": _optional(TEXT),
    "policy": TEXT,
    "noise": NOT_NEGATIVE,
    "episodes": COUNT,
    "sample": FLAG,
    "last_steps": _optional(COUNT),
    "checkpoints": _optional(
        (
            lambda v: isinstance(v, list) and len(v) > 0 and all(_integer(step) and step >= 0 for step in v),
            "a list of steps",
        )
    ),
    "checkpoint_steps": COUNT,
    "resume": _optional(TEXT),
    "resume_policy": _optional(TEXT),
    "offline_share": _optional(UNIT),
    "offline_share_end": _optional(UNIT),
    "anneal_steps": _optional(COUNT),
    "trust": (lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v), "a list of dotted names"),
    "objective": _optional(TEXT),
}


def check(cfg: DictConfig) -> None:
    """Check every value of our own parts against RULES; parts that come from elsewhere are left to themselves.

    Raises UserError with the dotted name, the value and what it must be.
    """
    content = values(cfg)
    for group in REQUIRED:
        if not content.get(group):
            raise UserError(f"{group} is missing: choose {group}=<one of {', '.join(_options(group))}>")
    trainer = str(content["trainer"].get("_target_")).rpartition(".")[2]
    if trainer == "Offline" and not content.get("dataset"):
        raise UserError("trainer=offline needs a data set: choose dataset=... or trainer=online")
    recorder = content.get("recorder") or {}
    if trainer == "Offline" and recorder.get("dataset_id"):
        raise UserError("recorder.dataset_id records what an online run collects: choose trainer=online or finetune")
    end = content["trainer"].get("env_steps") or math.inf
    late = [step for step in recorder.get("checkpoints") or [] if step >= end]
    if late:
        raise UserError(f"recorder.checkpoints has {late[0]}, but the run ends at trainer.env_steps: give smaller ones")
    if trainer == "Finetune" and not content.get("dataset"):
        raise UserError("trainer=finetune begins with a data set: choose dataset=... or trainer=online")
    if trainer != "Finetune" and content.get("resume_policy"):
        raise UserError("resume_policy is what trainer=finetune begins with: choose it, or leave out resume_policy")
    if trainer in ("Online", "Finetune") and content["agent"].get("_target_") == "awr_exp.agents.bc.BC":
        raise UserError(f"trainer={trainer.lower()} needs an agent that learns values: choose agent=awr")
    if trainer == "Online" and content.get("dataset"):
        raise UserError("trainer=online collects its own data: leave out dataset=..., or choose trainer=offline")
    if trainer == "Online" and content.get("baseline"):
        raise UserError("trainer=online has no data set for a baseline: leave out baseline=...")


def check_together(contents: Sequence[dict[str, Any]]) -> None:
    """Raises UserError where the runs of a sweep would get in each other's way."""
    ids = [id for content in contents if (id := (content.get("recorder") or {}).get("dataset_id"))]
    twice = next((id for id in ids if ids.count(id) > 1), None)
    if twice:
        raise UserError(
            f"several runs record '{twice}': let recorder.dataset_id differ, such as 'my/run-s${{seed}}-v0'"
        )


def values(cfg: DictConfig) -> dict[str, Any]:
    """The resolved values of a configuration. Raises UserError where one is missing or not in its range."""
    try:
        content: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        name = error.full_key or "a value"
        raise UserError(f"{name} is missing: give {name}=...") from None
    except (InterpolationResolutionError, OmegaConfBaseException) as error:
        raise UserError(first_line(error)) from None
    # The shallow first: agent.network is only a reference to network, where the user set the value.
    for path, value in sorted(_settings(content, ""), key=lambda setting: setting[0].count(".")):
        name = path.rpartition(".")[2]
        if name not in RULES:
            raise UserError(f"{path} is not a setting of awr_exp: remove it")
        accepts, wanted = RULES[name]
        if not accepts(value):
            raise UserError(f"{path} is {json.dumps(value, default=str)}; it must be {wanted}")
    return dict(content)


def _settings(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    if node.get("_target_", "awr_exp.").partition(".")[0] != "awr_exp":
        return
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and key not in RULES:
            yield from _settings(value, f"{path}.")
        elif not (key in ("_target_", "_partial_") or (value is None and key in GROUPS)):
            yield path, value


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


PLUGINS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "ray"}
"""Hydra's published launchers, and the extra that brings each."""


def check_arguments(arguments: Sequence[str]) -> None:
    """End with one line for options that are not there and launchers not installed, where Hydra writes a page."""
    elsewhere = any(argument.startswith(("--config-dir", "-cd", "hydra.searchpath")) for argument in arguments)
    for argument in arguments:
        group, _, option = argument.partition("=")
        plugin = f"hydra_plugins.hydra_{option.partition('_')[0]}_launcher"
        if group == "hydra/launcher" and option in PLUGINS and not _installed(plugin):
            sys.exit(f"error: {argument} is not installed: pip install 'awr-exp[{PLUGINS[option]}]'")
        known = _options(group) if group in GROUPS else []
        # Own ones may lie elsewhere; what is no plain name is Hydra's to understand.
        unknown = [name for name in option.split(",") if re.fullmatch(r"\w+", name) and name not in known]
        if known and (option in ("null", "") or (unknown and not elsewhere)):
            sys.exit(f"error: {argument}: choose {group}=<one of {', '.join(known)}> or leave it out")


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
        os.environ["HYDRA_FULL_ERROR"] = "0"


def said(error: Exception) -> str:
    """What Hydra says, but for its advice to append a setting that is not there."""
    text, cause = str(error), error.__cause__
    if (name := re.match("Could not override '(.+)'", text)) and isinstance(
        cause, ConfigAttributeError | ConfigKeyError
    ):
        return f"there is no {name[1]} with the options that are chosen: --cfg job shows what there is"
    return f"{text}\n{cause}" if isinstance(cause, OmegaConfBaseException) else text


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its parent
        return False


NAME_LENGTH = 128
"""What W&B takes as the name of a run."""
REQUIRED = ("agent", "advantage", "weighting", "network", "head", "optimizer", "env", "trainer")
GROUPS = frozenset(path.name for path in CONF.iterdir() if path.is_dir())


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
            raise UserError(f"{origin} {what}; if it is yours, trust=['{name}']")


def _foreign(content: Any) -> Iterator[tuple[str | None, str]]:
    """What a resolved configuration would call or import beyond our own parts: its name, if it has one, and how."""
    if isinstance(content, dict):
        target = content.get("_target_")
        if target is not None and target not in known_targets():
            yield target, f"wants to call '{target}', which is not a part of awr_exp"
        module, _, _ = str(content.get("id", "")).rpartition(":")
        if module:
            yield module, f"wants to import '{module}' for its environment"
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _foreign(value)
    elif isinstance(content, str) and "${" in content:
        # What it resolves to later could be anything.
        yield None, f"holds '{content}', which is not a plain value"


def to_resume(folder: Path, content: Any) -> str:
    """The command that goes on with a run of this configuration."""
    names = sorted({name for name, _ in _foreign(content) if name})
    trust = f" 'trust=[{','.join(names)}]'" if names else ""
    return f"python -m awr_exp.main resume={folder}{trust}"


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


def _choices(folder: Path) -> dict[str, str]:
    """The options of our groups that a run was started with, as far as we have them."""
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "hydra.yaml"))
        found = content["hydra"]["runtime"]["choices"].items()
    except Exception:
        return {}
    return {group: option for group, option in found if group in GROUPS and option in _options(group)}


def choices_to_resume(arguments: Iterable[str]) -> list[str]:
    """The options of the run to continue that a command line does not name: all its settings can then be changed."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if "resume" not in given:
        return []
    found = _choices(Path(given["resume"]))
    return [f"{group}={option}" for group, option in found.items() if group not in given and group != "experiment"]


def resumed(cfg: DictConfig) -> DictConfig:
    """The configuration of the run to continue, changed by what else the command line names; or cfg itself."""
    if cfg.resume is None:
        return cfg
    saved = saved_config(Path(cfg.resume), cfg.trust)
    choices = _choices(Path(cfg.resume))
    for override in HydraConfig.get().overrides.task:
        key, _, value = override.lstrip("+~").partition("=")
        key = key.partition("@")[0]
        if choices.get(key) == value:
            continue
        if key == "experiment":
            raise UserError("an experiment cannot be chosen for a run that is resumed: name the values to change")
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key), merge=False, force_add=True)
    return saved


def check_same(folder: Path, overrides: Iterable[str]) -> None:
    """Raises UserError if a run of other overrides lies in the folder: it would go on as what it is not."""
    before = results.overrides(folder)
    if before is not None and before != results.parsed(overrides):
        was = " ".join(f"{key}={value}" for key, value in before.items()) or "the defaults"
        raise UserError(
            f"{folder} was started as {was}: give the same command to go on with it, or choose another folder"
        )


class Check(Callback):
    """Ends a single run with one line before it has a folder, if its configuration is wrong."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        task: Any = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            if task.sweep.resume is not None:
                raise UserError("sweep.resume goes on with a sweep: add -m and the values that it was started with")
            if task.resume is not None:
                # What the options of its groups leave open, such as env.id, it says itself.
                task = OmegaConf.merge(saved_config(Path(task.resume), task.trust), task)
            check(task)
            if task.resume is None:
                check_same(Path(config.hydra.run.dir), config.hydra.overrides.task)
        except UserError as error:
            sys.exit(f"error: {error}")


def content(cfg: DictConfig) -> dict[str, Any]:
    """The values of a task's configuration, checked as by `check`.

    The W&B runs of a sweep that have no group and name of their own get its folder and what they override.
    """
    check(cfg)
    values: Any = OmegaConf.to_container(cfg, resolve=True)
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
        "run_dir",
        lambda resume: resume or f"outputs/runs/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}",
        replace=True,
        use_cache=True,
    )
    OmegaConf.register_new_resolver(
        "sweep_dir",
        lambda resume: resume or f"outputs/sweeps/{datetime.now():%Y-%m-%d/%H-%M-%S-%f}",
        replace=True,
        use_cache=True,
    )
    # A continued run keeps the configuration it was started with.
    OmegaConf.register_new_resolver("hydra_subdir", lambda resume: None if resume else ".hydra", replace=True)
