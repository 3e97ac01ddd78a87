"""Which configurations can be the members of one agent, and the one configuration of that agent.

Nothing is listed here: an agent's constructor says by its annotations what may differ between members (see
`awr_exp.ranges.PerMember`).
"""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from awr_exp import settings
from awr_exp.agents.agent import Agent
from awr_exp.building.build import locate
from awr_exp.errors import UserError
from awr_exp.ranges import arguments, per_member
from awr_exp.training.trainer import Trainer

Config = dict[str, Any]

SHARED = (
    "dataset",
    "env",
    "trainer",
    "callback",
    "evaluate",
    "holdout",
    "policy",
    "resume_policy",
    "device",
    "threads",
)
"""What all members have in common. Seed, loggers and objective are each member's own."""


def group_key(cfg: Config) -> str:
    """Equal for configurations that can be members of one agent, different for all others.

    Zero and other numbers do not stack: a term that is switched off may well be skipped.
    """
    parts = {name: cfg.get(name) for name in SHARED}
    for name in ("agent", "baseline"):
        parts[name] = copy.deepcopy(cfg.get(name))
        for place, key in own_values(parts[name] or {}):
            place[key] = place[key] == 0 and place[key] is not False
    if settings.chunk(cfg.get("dataset")) > 1:
        # The rewards of their data are sums by it.
        parts["gamma"] = (cfg.get("agent") or {}).get("gamma")
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
    copies = [copy.deepcopy(node) for node in nodes]
    for found in zip(*map(own_values, copies), strict=True):
        values = [place[key] for place, key in found]
        if any(value != values[0] for value in values):
            place, key = found[0]
            place[key] = values
    return copies[0]


def own_values(node: Config) -> Iterator[tuple[Config, str]]:
    """The values of a configuration that each member may have of its own: the mapping that one is in, and its key."""
    if not isinstance(node.get("_target_"), str):
        return
    # A class says by its constructor, inherited ones included, what may be a list of K.
    own = {name for name, hint in arguments(_object(node["_target_"])).items() if per_member(hint)}
    for key, value in sorted(node.items()):
        if key in own:
            yield node, key
        elif isinstance(value, dict):
            yield from own_values(value)


def _object(target: str) -> Any:
    """What a `_target_` names, or None: that it does not exist is said when it is built."""
    with suppress(UserError):
        return locate(target)
    return None


def _is(node: Config, kind: type) -> bool:
    found = _object(node["_target_"])
    return isinstance(found, type) and issubclass(found, kind)
