"""What the values of a configuration may be.

One name means one thing everywhere, so one table holds the range of every setting. Nothing here imports torch:
a mistake is answered in a fraction of a second.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from awr_exp.config import CONF, GROUPS, options
from awr_exp.errors import UserError, first_line
from awr_exp.guard import Kind, kinds, shown
from awr_exp.reading import LARGEST
from awr_exp.vocabulary import names as vocabulary
from awr_exp.vocabulary import near

REQUIRED = ("agent", "advantage", "weighting", "network", "head", "optimizer", "env", "trainer")

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

MOST_THREADS = 1024
"""More than any machine has cores; of many more, starting them ends the process."""

TEXT: Rule = (lambda v: isinstance(v, str) and v != "", "a text")

PARTS = frozenset({"_target_", "_partial_"})
"""What makes a node a part: what is called, and whether with more than its values."""

RULES: dict[str, Rule] = {
    "_target_": (
        lambda v: isinstance(v, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", v) is not None,
        "the dotted name of what is called, such as my_module.MyNetwork",
    ),
    "_partial_": FLAG,
    "beta": (POSITIVE[0], "a positive, finite number: it divides the advantage"),
    "max_weight": (lambda v: _number(v) and v >= 1, "a finite number of at least 1"),
    "gamma": UNIT,
    "ema_decay": (lambda v: _number(v) and 0 <= v < 1, "a number of at least 0 and below 1"),
    "lam": UNIT,
    "expectile": (lambda v: _number(v) and 0 < v < 1, "a number above 0 and below 1"),
    "target_rate": UNIT,
    "components": COUNT,
    "rate": UNIT,
    "features": COUNT,
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
    "output_init": _choice("orthogonal", "lecun", "kaiming", "xavier"),
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
    "project": _optional(TEXT),
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
        lambda v: isinstance(v, str) and re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", v) is not None,
        "auto, cpu, cuda or cuda:<number>",
    ),
    "threads": _optional(
        (lambda v: _integer(v) and 1 <= v <= MOST_THREADS, f"a whole number from 1 to {MOST_THREADS}")
    ),
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
    "dir": (TEXT[0], "a folder, such as runs/3"),
    "resume_policy": _optional(TEXT),
    "offline_share": _optional(UNIT),
    "offline_share_end": _optional(UNIT),
    "anneal_steps": _optional(COUNT),
    "interval": _optional(COUNT),
    "frames": COUNT,
    "trust": (lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v), "a list of dotted names"),
    "objective": _optional(TEXT),
}


def check(cfg: DictConfig, given: Iterable[str] = ()) -> dict[str, Any]:
    """The resolved values, each of our own parts checked against RULES; those from elsewhere are left to themselves.

    What a recipe has for another option than the chosen one, such as a beta where agent=bc, is left out; given: the
    overrides of the command line, which are not. Raises UserError with the dotted name, the value and what it must be.
    """
    content = values(cfg, "")
    for group in REQUIRED:
        if not content.get(group):
            raise UserError(f"{group} is missing: choose {group}=<one of {', '.join(options(group))}>")
    _check_places(content)
    trainer = str(content["trainer"].get("_target_")).rpartition(".")[2]
    if trainer == "Offline" and not content.get("dataset"):
        raise UserError("trainer=offline needs a data set: choose dataset=... or trainer=online")
    if trainer in ("Online", "Finetune") and not content["trainer"].get("schedule"):
        raise UserError(f"schedule is missing: choose schedule=<one of {', '.join(options('schedule'))}>")
    if trainer == "Offline" and "replay_size" in content["trainer"]:
        raise UserError("schedule=interleaved is how an online run learns: choose trainer=online or finetune beside it")
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
    asked = {override.lstrip("+").partition("=")[0] for override in given}
    for path in surplus(content):
        group, _, name = path.partition(".")
        if any(f"{name}.".startswith(f"{path}.") for name in asked):
            raise UserError(f"{path} is not a setting of the {group} that is chosen: leave it out")
        # The agents have their parts by reference.
        for node in (content, content["agent"], content.get("baseline") or {}):
            if isinstance(node.get(group), dict):
                node[group].pop(name, None)
    return content


def _check_places(content: Mapping[str, Any]) -> None:
    """Raises UserError where a part of ours stands in the place of another kind, or a logger is no part."""
    known = kinds(CONF)
    targets = {target for kind in known.values() for target in kind.targets}
    for group, kind in known[""].parts.items():
        node = content.get(group)
        target = node.get("_target_") if isinstance(node, dict) else None
        if target in targets - {None, *known[kind].targets}:
            raise UserError(f"{group}._target_ is {target}, which is none of ours for that: choose another {group}")
        if node and not target and known[kind].targets and None not in known[kind].targets:
            raise UserError(f"{group} is {shown(node)}, which has no _target_: choose {group}=<one of its options>")
    for group in ("logger", "callback"):
        for name, node in (content.get(group) or {}).items():
            if not isinstance(node, dict) or not (node.get("_target_") or name == "jsonl"):
                raise UserError(f"{group}.{name} is {shown(node)}; it must be a part with a _target_, or left out")


def surplus(content: Mapping[str, Any]) -> list[str]:
    """Settings of the chosen parts of ours that none of their options has, by dotted name."""
    known = _known()
    return [
        f"{group}.{name}"
        for group, node in content.items()
        if isinstance(node, dict) and node.get("_target_") in known
        for name, value in node.items()
        if name not in known[node["_target_"]] and not (isinstance(value, dict) and "_target_" in value)
    ]


@cache
def _known() -> dict[str, set[str]]:
    """What each part of ours takes, by its target: its yaml files mirror its constructor."""
    found: dict[str, set[str]] = {}
    for path in CONF.glob("*/*.yaml"):
        whole = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        node = whole if "_target_" in whole else whole.get(path.parent.name) or {}
        for base in whole.get("defaults", []):
            if isinstance(base, str) and path.with_stem(base).exists():
                node = yaml.safe_load(path.with_stem(base).read_text(encoding="utf-8")) | node
        if "_target_" in node:
            found.setdefault(node["_target_"], set()).update(node.keys() | PARTS)
    return found


def check_together(contents: Sequence[dict[str, Any]]) -> None:
    """Raises UserError where the runs of a sweep would get in each other's way."""
    ids = [id for content in contents if (id := (content.get("recorder") or {}).get("dataset_id"))]
    twice = next((id for id in ids if ids.count(id) > 1), None)
    if twice:
        raise UserError(
            f"several runs record '{twice}': let recorder.dataset_id differ, such as 'my/run-s${{seed}}-v0'"
        )


def values(cfg: DictConfig, place: str | None = None) -> dict[str, Any]:
    """The resolved values of a configuration. Raises UserError where one is missing or not in its range."""
    try:
        content: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        name = error.full_key or "a value"
        raise UserError(f"{name} is missing: give {name}=...") from None
    except (InterpolationResolutionError, OmegaConfBaseException) as error:
        raise UserError(first_line(error)) from None
    check_ranges(content, place)
    return dict(content)


def check_ranges(content: dict[str, Any], place: str | None = None) -> None:
    """Raises UserError for a value of our own parts, in resolved content, that is not in its range or of none of them.

    place: the kind of the content as a whole, "" that of a run; None takes all names.
    """
    known = Kind() if place is None else kinds(CONF)[place]
    # The shallow first: agent.network is only a reference to network, where the user set the value.
    for path, value, found in sorted(_settings(content, "", known), key=lambda setting: setting[0].count(".")):
        if not found or path.rpartition(".")[2] not in RULES:
            raise UserError(f"{path} is not a setting of awr_exp: remove it{near(path, vocabulary())}")
        check_value(path, value)


def check_origin(cfg: DictConfig) -> None:
    """As `check`, of what says where a configuration goes on from, which is needed before the others can be checked."""
    for path in ("resume", "sweep.resume", "trust"):
        value = OmegaConf.select(cfg, path)
        check_value(path, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


def check_value(path: str, value: Any) -> None:
    """Raises UserError where the value is not what its name asks for."""
    if _integer(value) and abs(value) >= LARGEST:
        raise UserError(f"{path} is {value}, which is too large")
    accepts, wanted = RULES[path.rpartition(".")[2]]
    if not accepts(value):
        raise UserError(f"{path} is {shown(value)}; it must be {wanted}")


def _settings(node: dict[str, Any], prefix: str, kind: Kind) -> Iterator[tuple[str, Any, bool]]:
    """Dotted name and value of each, and whether it has its place where it is."""
    for key in PARTS & node.keys():
        yield f"{prefix}{key}", node[key], True
    if str(node.get("_target_", "awr_exp.")).partition(".")[0] != "awr_exp":
        return
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and key not in RULES:
            if kind == Kind() or key in kind.parts or key in kind.mappings or "_target_" in value:
                yield from _settings(value, f"{path}.", kinds(CONF)[kind.parts[key]] if key in kind.parts else Kind())
            else:
                yield path, value, False
        elif key not in PARTS and not (value is None and key in GROUPS):
            yield path, value, kind == Kind() or key in kind.values | kind.mappings | kind.parts.keys()
