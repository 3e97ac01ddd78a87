"""Whether a configuration is one that can train: its values by their ranges, its parts by what they need of each other.

Nothing here imports torch: a mistake is answered in a fraction of a second.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue, OmegaConfBaseException

from awr_exp import ranges, shell
from awr_exp.config import CONF, SWEEPS, options
from awr_exp.errors import UserError, first_line
from awr_exp.ranges import Count, NotNegative, Range, Text, Texts, Whole, shown
from awr_exp.signatures import parameters
from awr_exp.vocabulary import MARKERS, RUN, SWEEP, Kind, is_left_out, kinds, names, near, referred

COLLECTION = Kind(
    parts={"env": "env"},
    own={
        "policy": Text,
        "dataset_id": Text,
        "episodes": Count,
        "noise": NotNegative,
        "sample": bool,
        "seed": Whole,
        "trust": Texts,
    },
)
"""What may stand in collection.yaml."""
FOLDER = Annotated[str, Range(ranges.matches("(?s).+"), "a folder, such as runs/3")]


def check(cfg: DictConfig, given: Iterable[str] = ()) -> dict[str, Any]:
    """The resolved values of a run, each of our own parts checked; those from elsewhere are left to themselves.

    What a recipe or the defaults have for another option than the chosen one, such as a beta or a weighting where
    agent=bc, is left out; given: the overrides of the command line, which are not. Raises UserError that says what is
    wrong.
    """
    content = values(cfg)
    asked = {shell.key(override): override for override in given}
    for group in ("agent", "env", "trainer"):
        _check_there(group, content)
    _check_places(content)
    for owner in ("agent", "baseline", "trainer"):
        node, kind = content.get(owner) or {}, kinds(CONF)[kinds(CONF)[""].parts[owner]]
        for group in node.keys() | parameters(node.get("_target_")).keys():
            if kind.parts.get(group) == group:
                _check_there(group, node)
    _check_trainer(content)
    for group, owner in _unused(OmegaConf.to_container(cfg)):
        for name in asked:
            if name.partition(".")[0] == group:
                raise UserError(
                    f"{asked[name].lstrip('+')} has no effect, since the {owner} that is chosen has no {group}: leave it out, or "
                    f"choose another {owner}"
                )
        content[group] = None
    for path in surplus(content):
        group, _, name = path.partition(".")
        if any(f"{one}.".startswith(f"{path}.") for one in asked):
            raise UserError(f"{path} is not a setting of the {group} that is chosen: leave it out")
        # The agents have their parts by reference.
        for node in (content, content["agent"], content.get("baseline") or {}):
            if isinstance(node.get(group), dict):
                node[group].pop(name, None)
    return content


def _check_there(group: str, node: Mapping[str, Any]) -> None:
    if not node.get(group):
        raise UserError(f"{group} is missing: choose {group}=<one of {', '.join(options(group))}>")


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
    for name, node in (content.get("logger") or {}).items():
        if not isinstance(node, dict) or not (node.get("_target_") or name == "jsonl"):
            raise UserError(f"logger.{name} is {shown(node)}; it must be a part with a _target_, or left out")


def _check_trainer(content: Mapping[str, Any]) -> None:
    """Raises UserError where a trainer of ours takes what is not there, or not what is."""
    node, recorder = content["trainer"], content.get("recorder") or {}
    takes, name = parameters(node["_target_"]), f"trainer={node['_target_'].rpartition('.')[2].lower()}"
    late = [str(step) for step in recorder.get("checkpoints") or [] if step >= node.get("env_steps", math.inf)]
    data, collects = "data" in takes and takes["data"].required, "schedule" in takes
    learns_values = "value_iters" in (parameters(content["agent"]["_target_"]) or ["value_iters"])
    for wrong, said in (
        (data and not content.get("dataset"), f"{name} needs a data set: choose dataset=... or trainer=online"),
        (not collects and recorder.get("dataset_id"),
         "recorder.dataset_id records what an online run collects: choose trainer=online or finetune"),
        (late, f"recorder.checkpoints has {', '.join(late)}, but the run ends at trainer.env_steps: give smaller ones"),
        ("pretrain" not in node and content.get("resume_policy"),
         "resume_policy is what trainer=finetune begins with: choose it, or leave out resume_policy"),
        (collects and not learns_values, f"{name} needs an agent that learns values: choose agent=awr"),
        (not data and content.get("dataset"),
         f"{name} collects its own data: leave out dataset=..., or choose trainer=offline"),
        (not data and content.get("baseline"), f"{name} has no data set for a baseline: leave out baseline=..."),
    ):  # fmt: skip
        if wrong and takes:
            raise UserError(said)


def _unused(raw: Any) -> Iterator[tuple[str, str]]:
    """The groups of parts of parts, with whose they are, that nothing in a configuration with references refers to."""
    known = kinds(CONF)
    owners = {
        group: owner for owner in ("agent", "trainer") for name, group in known[owner].parts.items() if name == group
    }
    used: set[str] = set()
    ahead = [node for group, node in raw.items() if group not in owners]
    while ahead:
        node = ahead.pop()
        if group := referred(node, owners.keys() - used):
            used.add(group)
            ahead.append(raw[group])
        ahead += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return ((group, owner) for group, owner in owners.items() if group not in used)


def surplus(content: Mapping[str, Any]) -> list[str]:
    """Settings of the chosen parts of ours that others of their group have, by dotted name."""
    return [
        f"{group}.{name}"
        for group, node in content.items()
        if isinstance(node, dict) and (takes := parameters(node.get("_target_")))
        for name in node
        if name not in takes and not (isinstance(node[name], dict) and "_target_" in node[name]) and name not in MARKERS
    ]


def check_together(contents: Sequence[dict[str, Any]]) -> None:
    """Raises UserError where the runs of a sweep would get in each other's way."""
    ids = [id for content in contents if (id := (content.get("recorder") or {}).get("dataset_id"))]
    twice = next((id for id in ids if ids.count(id) > 1), None)
    if twice:
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
    except (InterpolationResolutionError, OmegaConfBaseException) as error:
        raise UserError(first_line(error)) from None
    check_ranges(content, kind)
    return dict(content)


def check_ranges(content: dict[str, Any], kind: Kind | None = None) -> None:
    """As `values`, of content that is resolved, or of some of its parts by name."""
    # The shallow first: agent.network is only a reference to network, where the user set the value.
    found = sorted(_settings(content, kind or kinds(CONF)[""]), key=lambda setting: setting[0].count("."))
    for path, value, hint in found:
        if hint is None:
            raise UserError(f"{path} is not a setting of awr_exp: remove it{near(path, names(CONF, SWEEPS))}")
        ranges.check(path, value, hint)


def check_origin(cfg: DictConfig) -> None:
    """As `check`, of what says where a configuration goes on from, which is needed before the others can be checked."""
    for path, hint in (("resume", RUN["resume"]), ("sweep.resume", SWEEP["resume"]), ("trust", RUN["trust"])):
        value = OmegaConf.select(cfg, path)
        ranges.check(path, OmegaConf.to_container(value) if OmegaConf.is_config(value) else value, hint)


def _settings(node: dict[str, Any], kind: Kind, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and annotation of each setting of our parts; None for the annotation of what is none.

    What only another part of its kind has is annotated as there.
    """
    target = node.get("_target_")
    foreign, own = (
        str(target or "awr_exp.").partition(".")[0] != "awr_exp",
        kind.settings(target) if target else kind.own,
    )
    for name, value in node.items():
        path = f"{prefix}{name}"
        if name in MARKERS:
            yield path, value, MARKERS[name]
        elif foreign or (name in kind.parts and value is None):
            continue
        elif isinstance(value, dict) and (name in kind.parts or "_target_" in value):
            yield from _settings(value, kinds(CONF)[kind.parts[name]] if name in kind.parts else Kind(), f"{path}.")
        else:
            yield path, value, own.get(name) or kind.settings().get(name)
