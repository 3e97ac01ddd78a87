"""The rule for what stands in a file that may come from anybody: in each place only what our own yaml files put there.

A place is a dotted name, such as `agent.network`. Each has a kind, which says what may be called there, and which names
are parts of other kinds; the rest are plain values, which the arguments of what is called have ranges for.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from awr_exp.errors import UserError
from awr_exp.ranges import shown
from awr_exp.reading import DEEPEST
from awr_exp.vocabulary import MARKERS, REFERENCE, Kind, is_left_out

LARGEST = 20_000
"""The most values and letters that a configuration may have with all references followed; ours have some hundred."""

Refusal = tuple[str | None, str]
"""What would be called or imported, where somebody may trust it by that name, and what is wrong with it."""


def refusals(node: Any, known: Mapping[str, Kind], place: str = "", name: str = "") -> Iterator[Refusal]:
    """What in a configuration, or in some places of one by name, is not what may stand there.

    known: the kinds of parts; place: where `node` stands, if it is a part; name: that of the kind that may stand there.
    """
    if is_left_out(node):
        return
    kind, where = known[name], place or "configuration"
    if not isinstance(node, dict):
        yield None, f"has {shown(node)} as its {where}"
        return
    target, partial = node.get("_target_"), node.get("_partial_", False)
    own, settings = _is_own(target), kind.settings()
    if own:
        yield target, f"wants to call '{target}' as its {where}, which is not a part of awr_exp"
    elif target not in [*kind.targets] and (target is not None or kind.targets):
        yield None, f"wants to call {shown(target)} as its {where}, which is none of ours for that"
    elif partial is not kind.targets.get(target, False):
        yield None, f"has {shown(partial)} as {where}._partial_"
    for key, value in node.items():
        path = f"{place}.{key}".lstrip(".")
        nested = isinstance(value, dict) and _is_own(value.get("_target_"))
        if key in MARKERS:
            continue
        if key in kind.parts:
            yield from refusals(value, known, path, kind.parts[key])
        elif own or nested or key in settings:
            yield from _of_value(key, value, path, known if own or nested else None)
        else:
            yield None, f"has {shown(path)}, which is not a setting: remove it"


def _is_own(target: Any) -> bool:
    """Whether it can be somebody's own part, which may be trusted by its name."""
    return isinstance(target, str) and re.fullmatch(r"(?!awr_exp\.)\w+(\.\w+)+", target) is not None


def _of_value(key: Any, value: Any, path: str, known: Mapping[str, Kind] | None = None) -> Iterator[Refusal]:
    """What is refused among plain values; known: the kinds, for an own part, which may have further parts."""
    if known and isinstance(value, dict) and "_target_" in value:
        # Other own ones, and what our agents and trainers have as parts, too.
        parts = {*known["agent"].parts.values(), *known["trainer"].parts.values()} - {"trainer"}
        fits = [name for name in sorted(parts) if value["_target_"] in [*known[name].targets]]
        yield from refusals(value, known, path, fits[0] if fits else min(parts))
    elif not isinstance(key, str) or key.startswith("_"):
        yield None, f"has {shown(path)}, which is not a setting: remove it"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _of_value(name, inner, f"{path}.{name}", known)
    elif isinstance(value, list):
        for inner in value:
            yield from _of_value(key, inner, path, known)
    elif isinstance(value, str) and "${" in value:
        # What it resolves to could be anything.
        yield None, f"has {shown(value)} as {path}, which is not a plain value: write there what it should be"
    elif isinstance(value, str) and (path.startswith("env.") or path == "dataset.goal_reward"):
        if module := foreign_module(value) if key in ("id", "goal_reward") or names_module(value) else None:
            plain = re.fullmatch(r"\w+(\.\w+)*", module)
            said = f"'{module}'" if plain else shown(module)
            yield module if plain else None, f"wants to import {said} for its environment"
        elif key not in ("id", "goal_reward") and names_file(value):
            yield value, f"wants to open {shown(value)} as {path}"
    elif value and path in ("logger.wandb.entity", "logger.mlflow.tracking_uri"):
        yield value, f"wants to send its metrics to {shown(value)} at {'W&B' if 'wandb' in path else 'MLflow'}"


def foreign_module(id: str) -> str | None:
    """The module that making the environment `id` would import, if there is one and it is none of ours."""
    module, _, _ = id.rpartition(":")
    return module if module and not module.startswith("awr_exp.") else None


def names_module(text: str) -> bool:
    """Whether an environment might import what its argument names, as it looks like "module:Name"."""
    return re.match(r"[A-Za-z_][\w.]*:[\w.]", text) is not None


def names_file(text: str) -> bool:
    """Whether an environment might open what its argument names, such as MuJoCo its xml_file."""
    return text.startswith(("~", ".")) or "/" in text or "\\" in text


def resolved(content: Any, origin: Path) -> Any:
    """A configuration with all references to its own values followed; what else looks like one stays as it is.

    Raises UserError if that has no end, or a far one.
    """
    left = [LARGEST]

    def follow(node: Any, depth: int) -> Any:
        left[0] -= 1
        if depth > DEEPEST or left[0] < 0:
            raise UserError(f"{origin} cannot be read: its references to its own values lead too far")
        if isinstance(node, dict):
            return {key: follow(value, depth + 1) for key, value in node.items()}
        if isinstance(node, list):
            return [follow(value, depth + 1) for value in node]
        if not isinstance(node, str):
            return node
        if whole := REFERENCE.fullmatch(node):
            found = value_at(content, whole[1])
            return node if found is None else follow(found, depth + 1)
        text = REFERENCE.sub(lambda name: str(follow(value_at(content, name[1]), depth + 1)), node)
        left[0] -= len(text)
        return text

    return follow(content, 0)


def value_at(content: Any, name: str) -> Any:
    """What a configuration has in a place with a dotted name; None where there is no such place."""
    for key in name.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    return content
