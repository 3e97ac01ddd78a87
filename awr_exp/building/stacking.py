"""Which configurations can be the members of one agent, and the one configuration of that agent.

Nothing is listed here: an agent's constructor says by its annotations what may differ between members (see
`awr_exp.ranges.PerMember`).
"""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hydra.utils import get_object

from awr_exp.agents.agent import Agent
from awr_exp.ranges import arguments, per_member
from awr_exp.training.trainer import Trainer

Config = dict[str, Any]
Path = tuple[str, ...]

SHARED = ("dataset", "env", "trainer", "callback", "resume_policy", "device", "threads")
"""What all members have in common. Seed, loggers and objective are each member's own."""


def group_key(cfg: Config) -> str:
    """Equal for configurations that can be members of one agent, different for all others.

    Zero and other numbers do not stack: a term that is switched off may well be skipped.
    """
    parts = {name: cfg.get(name) for name in SHARED}
    for name in ("agent", "baseline"):
        node = cfg.get(name)
        own = {path: _value(node, path) for path in _paths(node)} if node else {}
        zero = sorted(path for path, value in own.items() if value == 0 and value is not False)
        parts[name] = [_without(node, set(own)), zero]
    parts["records"] = (cfg.get("recorder") or {}).get("dataset_id") is not None
    if not stackable(cfg):
        parts["alone"] = id(cfg)
    return json.dumps(parts, sort_keys=True, default=str)


def stackable(cfg: Config) -> bool:
    """Whether agent, baseline and trainer know members at all; other people's may not."""
    agents = [cfg[name] for name in ("agent", "baseline") if cfg.get(name)]
    return _is(cfg["trainer"], Trainer) and all(map(is_agent, agents))


def is_agent(node: Config) -> bool:
    """Whether an agent is of ours, or of a class of one's own that inherits from ours."""
    return _is(node, Agent)


def stack(nodes: Sequence[Config]) -> Config:
    """The configuration of an agent whose members are these: lists of K where they differ, else one value."""
    merged: Config = json.loads(json.dumps(nodes[0]))
    for path in _paths(nodes[0]):
        values = [_value(node, path) for node in nodes]
        if any(value != values[0] for value in values):
            place = merged
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] = values
    return merged


def _paths(node: Config, prefix: Path = ()) -> Iterator[Path]:
    """The places in a configuration whose values members may have of their own."""
    if not isinstance(node.get("_target_"), str):
        return
    names = _per_member(node["_target_"])
    for key, value in node.items():
        if key in names:
            yield (*prefix, key)
        elif isinstance(value, dict):
            yield from _paths(value, (*prefix, key))


def _per_member(target: str) -> set[str]:
    """The parameters of a class's constructor, inherited ones included, that take a list of K."""
    return {name for name, hint in arguments(_object(target)).items() if per_member(hint)}


@cache
def _object(target: str) -> Any:
    """What a `_target_` names, or None: that it does not exist is said when it is built."""
    try:
        return get_object(target)
    except Exception:
        return None


def _is(node: Config, kind: type) -> bool:
    found = _object(node["_target_"])
    return isinstance(found, type) and issubclass(found, kind)


def _value(node: Config, path: Path) -> Any:
    for name in path:
        node = node[name]
    return node


def _without(node: Config | None, paths: set[Path], prefix: Path = ()) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without(value, paths, (*prefix, key)) for key, value in node.items() if (*prefix, key) not in paths}
