"""Whether a configuration is one that can train: its values by their ranges, its parts by what they need of each other.

Nothing here imports torch: a mistake is answered in a fraction of a second.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from awr_exp import ranges, shell
from awr_exp.config import CONF, SWEEPS, options
from awr_exp.errors import UserError, first_line
from awr_exp.ranges import Count, NotNegative, Range, Text, Texts, Whole, shown
from awr_exp.signatures import parameters
from awr_exp.vocabulary import MARKERS, REFERENCE, RUN, SWEEP, Kind, is_left_out, kinds, names, near

COLLECTION = Kind({}, {"env": "env"}, {"policy": Text, "dataset_id": Text, "episodes": Count, "noise": NotNegative,
                                       "sample": bool, "seed": Whole, "trust": Texts})  # fmt: skip
"""What may stand in collection.yaml."""
EVALUATION = Kind({}, {"env": "env"}, {
    "runs": Texts,
    "episodes": Count,
    "seed": Annotated[int, Range(lambda v: type(v) is int and 0 <= v < 2**31, f"a whole number below {2**31}")],
    "which": Literal["best", "latest"],
    "sample": bool,
    "best_of": Count | None,
    "video": bool,
    "json": Text | None,
    "trust": Texts,
})  # fmt: skip
"""What may stand in evaluation.yaml."""
FOLDER = Annotated[str, Range(ranges.matches("(?s).+"), "a folder, such as runs/3")]


def check(cfg: DictConfig, given: Iterable[str] = ()) -> dict[str, Any]:
    """The resolved values of a run, each of our own parts checked; those from elsewhere are left to themselves.

    What a recipe or the defaults have for other options than the chosen ones, such as a weighting or a beta where
    agent=bc, is left out; given: the overrides of the command line, which are not. Raises UserError that says what is
    wrong.
    """
    return checked(cfg, given)[0]


def checked(cfg: DictConfig, given: Iterable[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The values as of `check`, and the dotted names of those that were left out. Raises UserError as it does."""
    content, known = values(cfg), kinds(CONF)
    idle = surplus(content)
    asked = {shell.key(override): override.lstrip("+") for override in given if not override.startswith("~")}
    _check_places(content)
    missing = [group for group in ("agent", "env", "trainer") if not content.get(group)]
    for owner, kind in (("agent", "agent"), ("baseline", "agent"), ("trainer", "trainer")):
        node = content.get(owner) or {}
        needed = known[kind].parts.keys() & known[""].parts & (node.keys() | parameters(node.get("_target_")))
        missing += [group for group in sorted(needed) if not node.get(group)]
    if missing:
        raise UserError(f"{missing[0]} is missing: choose {missing[0]}=<one of {', '.join(options(missing[0]))}>")
    for group, why in (_without_use(content["trainer"]) | _without_reference(OmegaConf.to_container(cfg))).items():
        typed = [override for name, override in asked.items() if name.partition(".")[0] == group]
        if typed and not is_left_out(content.get(group)):
            raise UserError(f"{typed[0]} has no effect, since {why}")
        content[group] = None
    _check_trainer(content)
    if str(content.get("objective")).startswith("heldout/"):
        raise UserError(
            f"objective={content['objective']} is smaller where it is better, and a search maximises: choose another, "
            "such as evaluate=fqe objective=fqe/return_mean"
        )
    for path in surplus(content):
        group, _, name = path.partition(".")
        if any(f"{one}.".startswith(f"{path}.") for one in asked):
            raise UserError(f"{path} is not a setting of the {group} that is chosen: leave it out")
        # The agents have their parts by reference.
        for node in (content, *(content.get(owner) or {} for owner in ("agent", "baseline", "evaluate"))):
            if isinstance(node.get(group), dict):
                node[group].pop(name, None)
    return content, idle


def _check_places(content: Mapping[str, Any]) -> None:
    """Raises UserError where something of ours stands in the place of another kind, or what stands there is no part."""
    known = kinds(CONF)
    for place, kind in known[""].parts.items():
        node, group = content.get(place), "collect" if place == "recorder" else place
        target = node.get("_target_") if isinstance(node, dict) else None
        if parameters(target) and target not in known[kind].targets:
            raise UserError(f"{place}._target_ is {target}, which is none of ours for that: choose another {group}")
        if known[kind].targets and not (target or is_left_out(node)):
            raise UserError(f"{place} is {shown(node)}, which has no _target_: choose {group}=<one of its options>")
    for group in ("logger", "callback"):
        for name, node in (content.get(group) or {}).items():
            if not isinstance(node, dict) or not (node.get("_target_") or name == "jsonl"):
                raise UserError(f"{group}.{name} is {shown(node)}; it must be a part with a _target_, or left out")


USES = {
    "dataset": ("data", "collects its own data: leave it out, or choose trainer=offline or finetune"),
    "baseline": ("data", "has no data set for a baseline: leave it out"),
    "evaluate": ("data", "has no data set to evaluate policies on: leave it out, or choose trainer=offline"),
    "recorder": ("schedule", "collects nothing to record: choose trainer=online or finetune"),
    "resume_policy": ("pretrain", "begins anew: leave it out, or choose trainer=finetune"),
}
"""What of a configuration only a trainer with a certain argument makes use of, and what is said of any other."""


def _without_use(trainer: Mapping[str, Any]) -> dict[str, str]:
    """What a trainer of ours makes no use of, and why."""
    takes, name = parameters(trainer["_target_"]), _option(trainer)
    return {
        group: f"{name} {why}"
        for group, (argument, why) in USES.items()
        if takes and argument not in takes.keys() | trainer.keys()
    }


def _option(trainer: Mapping[str, Any]) -> str:
    return f"trainer={trainer['_target_'].rpartition('.')[2].lower()}"


def _without_reference(raw: Any) -> dict[str, str]:
    """The groups of parts of parts that nothing in a configuration with references refers to, and why."""
    known, used = kinds(CONF), REFERENCE.findall(str(raw))
    return {
        group: f"the {owner} that is chosen has no {group}: leave it out, or choose another {owner}"
        for owner in ("agent", "trainer")
        for group in known[owner].parts.keys() & known[""].parts
        if group not in used
    }


def _check_trainer(content: Mapping[str, Any]) -> None:
    """Raises UserError where a trainer of ours lacks something, or something ends too late for it."""
    trainer, recorder = content["trainer"], content.get("recorder") or {}
    takes, name = parameters(trainer["_target_"]), _option(trainer)
    if "data" in takes and not content.get("dataset"):
        raise UserError(f"{name} needs a data set: choose dataset=... or trainer=online")
    if "schedule" in takes and "value_iters" not in (parameters(content["agent"]["_target_"]) or ["value_iters"]):
        raise UserError(f"{name} needs an agent that learns values: choose agent=awr")
    if "env_steps" in takes and (steps := chunk(content.get("dataset"))) > 1:
        raise UserError(
            f"{name} collects single steps, and dataset.action_chunk={steps} learns several at once: leave it out, or "
            "choose trainer=offline"
        )
    late = [step for step in recorder.get("checkpoints") or [] if step >= trainer.get("env_steps", math.inf)]
    if late:
        raise UserError(f"recorder.checkpoints has {late[0]}, but the run ends at trainer.env_steps: give smaller ones")


def surplus(content: Mapping[str, Any]) -> list[str]:
    """Settings of the chosen parts of ours that others of their group have, by dotted name."""
    return [
        f"{group}.{name}"
        for group, node in content.items()
        if isinstance(node, dict) and (takes := parameters(node.get("_target_")))
        for name in node
        if name not in takes and not (isinstance(node[name], dict) and "_target_" in node[name]) and name not in MARKERS
    ]


def chunk(dataset: Mapping[str, Any] | None) -> int:
    """How many steps an action is for, by the configuration of a data set."""
    return int((dataset or {}).get("action_chunk") or 1)


def samples(sample: bool, best_of: int | None) -> int | None:
    """How many samples a policy chooses from, None as in training. Raises UserError if it is to act in two ways."""
    if sample and (best_of or 1) > 1:
        raise UserError(f"sample=true takes one sample, and best_of={best_of} the best of several: leave one out")
    return 1 if sample else best_of


def check_together(contents: Sequence[dict[str, Any]]) -> None:
    """Raises UserError where the runs of a sweep would get in each other's way."""
    ids = Counter((content.get("recorder") or {}).get("dataset_id") for content in contents)
    if twice := next((id for id, count in ids.items() if id and count > 1), None):
        raise UserError(
            f"several runs record '{twice}': let recorder.dataset_id differ, such as 'my/run-s${{seed}}-v0'"
        )


def values(cfg: DictConfig, kind: Kind | None = None) -> dict[str, Any]:
    """The resolved values of a configuration, of a run unless `kind` is of another one.

    Raises UserError where one is missing or not in its range.
    """
    try:
        content: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        name = error.full_key or "a value"
        raise UserError(f"{name} is missing: give {name}=...") from None
    except OmegaConfBaseException as error:
        raise UserError(first_line(error)) from None
    check_ranges(content, kind)
    return dict(content)


def check_ranges(content: dict[str, Any], kind: Kind | None = None) -> None:
    """Check the ranges of content that is resolved, or of some of its parts by name, as `values` does."""
    # The shallow first: agent.network is only a reference to network, where the user set the value.
    found = sorted(_settings(content, kind or kinds(CONF)[""]), key=lambda setting: setting[0].count("."))
    for path, value, hint in found:
        if hint is None:
            raise UserError(f"{path} is not a setting of awr_exp: remove it{near(path, names(CONF, SWEEPS))}")
        ranges.check(path, value, hint)


def check_origin(cfg: DictConfig) -> None:
    """Check what says where a configuration goes on from, which is needed before the rest can be checked."""
    for path, hint in (("resume", RUN["resume"]), ("sweep.resume", SWEEP["resume"]), ("trust", RUN["trust"])):
        value = OmegaConf.select(cfg, path)
        ranges.check(path, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value, hint)


def _settings(node: dict[str, Any], kind: Kind, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and annotation of each setting of our parts; None for the annotation of what is none.

    What only another part of its kind has is annotated as there.
    """
    target = node.get("_target_")
    ours = not target or str(target).startswith("awr_exp.")
    hints = kind.settings() | (kind.settings(target) if target else kind.own) | MARKERS
    for name, value in node.items():
        is_part = name in kind.parts or (isinstance(value, dict) and "_target_" in value)
        if ours and is_part and isinstance(value, dict):
            inner = kinds(CONF)[kind.parts[name]] if name in kind.parts else Kind()
            yield from _settings(value, inner, f"{prefix}{name}.")
        elif name in MARKERS or (ours and not (is_part and value is None)):
            yield f"{prefix}{name}", value, hints.get(name)
