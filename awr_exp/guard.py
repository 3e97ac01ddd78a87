"""The rule for what stands in a file that may come from anybody: in each place only what our own yaml files put there.

A place is a dotted name, such as `agent.network`. Each has a kind, which says what may be called there, which names are
parts of other kinds, and which are plain values. All of that is learnt from the shipped files.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from awr_exp.errors import UserError
from awr_exp.reading import DEEPEST

REFERENCE = re.compile(r"(?<!\\)\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
"""To another value of the same configuration; whatever else may stand in such braces can look at the machine."""
LARGEST = 20_000
"""Values, and letters of one, that a configuration has when all references are followed; ours have some hundred."""

Refusal = tuple[str | None, str]
"""What would be called or imported, where somebody may trust it by that name, and what is wrong with it."""


@dataclass
class Kind:
    """What may stand in a place.

    targets: what may be called, and its `_partial_`; None among them: it may also be values alone; values: names of
    plain values; mappings: of mappings of these; parts: of further places, and their kinds.
    """

    targets: dict[str | None, bool] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    mappings: set[str] = field(default_factory=set)
    parts: dict[str, str] = field(default_factory=dict)


@cache
def kinds(conf: Path) -> dict[str, Kind]:
    """By name, what the yaml files in `conf` say; "" is the whole configuration."""
    known: dict[str, Kind] = {}
    groups = {path.parent.name for path in conf.glob("*/*.yaml")} - {"experiment"}
    for path in [conf / "config.yaml", *(path for group in groups for path in sorted((conf / group).glob("*.yaml")))]:
        text = path.read_text()
        package = re.search(r"^# @package (\w+)", text)
        group = "" if path.parent == conf else path.parent.name
        place = group if package is None else package[1].removeprefix("_global_")
        content = yaml.safe_load(text) or {}
        for source, target in _placed(content.pop("defaults", []), place):
            parent, _, name = target.rpartition(".")
            known.setdefault(parent, Kind()).parts[name] = source or group
        content.pop("hydra", None)
        if (
            place
            and content
            and "_target_" not in content
            and not any(isinstance(one, dict) for one in content.values())
        ):
            known.setdefault(place, Kind()).targets[None] = False
        if place:
            known.setdefault("", Kind()).parts.setdefault(place, place)
        _learn(known, place, content, groups)
    return known


def _placed(defaults: list[Any], place: str) -> Iterator[tuple[str, str]]:
    """Of a file's defaults those that put an option of a group, "" for the file's own, in a place of their own."""
    for entry in defaults:
        chosen = next(iter(entry)) if isinstance(entry, dict) else entry
        source, at, package = chosen.partition("@")
        if at:
            yield source.strip("/") if isinstance(entry, dict) else "", place if package == "_here_" else package


def _learn(known: dict[str, Kind], name: str, content: dict[str, Any], groups: set[str]) -> None:
    kind = known.setdefault(name, Kind())
    if "_target_" in content:
        kind.targets[content["_target_"]] = content.get("_partial_", False)
    for key, value in content.items():
        if key in ("_target_", "_partial_"):
            continue
        reference = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if reference and reference[1] in groups:
            kind.parts[key] = reference[1]
        elif isinstance(value, dict) and (key in groups or "_target_" in value or not name):
            kind.parts[key] = key if key in groups else f"{name}.{key}"
            _learn(known, kind.parts[key], value, groups)
        else:
            (kind.mappings if isinstance(value, dict) else kind.values).add(key)


def refusals(content: Any, conf: Path) -> Iterator[Refusal]:
    """What in a configuration, or in some places of one by name, is not what may stand there."""
    return _refusals(content, "", "", kinds(conf))


def _refusals(node: Any, place: str, name: str, known: dict[str, Kind]) -> Iterator[Refusal]:
    """Of what stands in `place`, whose kind is called `name`."""
    if node is None or node == {}:
        return
    kind, where = known[name], place or "configuration"
    if not isinstance(node, dict):
        yield None, f"has {shown(node)} as its {where}"
        return
    target, partial = node.get("_target_"), node.get("_partial_", False)
    own = _is_own(target)
    if own:
        yield target, f"wants to call '{target}' as its {where}, which is not a part of awr_exp"
    elif target not in [*kind.targets] and (target is not None or kind.targets):
        yield None, f"wants to call {shown(target)} as its {where}, which is none of ours for that"
    elif partial is not kind.targets.get(target, False):
        yield None, f"has {shown(partial)} as {where}._partial_"
    for key, value in node.items():
        path = f"{place}.{key}".lstrip(".")
        nested = isinstance(value, dict) and "_target_" in value
        if key in ("_target_", "_partial_"):
            continue
        if key in kind.parts:
            yield from _refusals(value, path, kind.parts[key], known)
        elif own or (nested and _is_own(value["_target_"])):
            yield from _of_own(key, value, path, known)
        elif key in kind.mappings or (key in kind.values and not isinstance(value, dict)):
            yield from _of_plain(key, value, path)
        else:
            yield None, f"has {shown(path)}, which is not a setting: remove it"


def _is_own(target: Any) -> bool:
    """Whether it can be somebody's own part, which may be trusted by its name."""
    return isinstance(target, str) and re.fullmatch(r"(?!awr_exp\.)\w+(\.\w+)+", target) is not None


def _of_own(key: Any, value: Any, path: str, known: dict[str, Kind]) -> Iterator[Refusal]:
    """Of what an own part is given: other own parts, and what our agents and trainers have as parts, too."""
    if isinstance(value, dict) and "_target_" in value:
        parts = {*known["agent"].parts.values(), *known["trainer"].parts.values()} - {"trainer"}
        fits = [name for name in sorted(parts) if value["_target_"] in [*known[name].targets]]
        yield from _refusals(value, path, fits[0] if fits else min(parts), known)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _of_own(name, inner, f"{path}.{name}", known)
    elif isinstance(value, list):
        for inner in value:
            yield from _of_own(key, inner, path, known)
    else:
        yield from _of_plain(key, value, path)


def _of_plain(key: Any, value: Any, path: str) -> Iterator[Refusal]:
    """Of what should be values alone."""
    if not isinstance(key, str) or key.startswith("_"):
        yield None, f"has {shown(path)}, which is not a setting: remove it"
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _of_plain(name, inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _of_plain(key, inner, path)
    elif isinstance(value, str) and "${" in value:
        # What it resolves to could be anything.
        yield None, f"has {shown(value)} as {path}, which is not a plain value: write there what it should be"
    elif isinstance(value, str) and path.startswith("env."):
        if module := foreign_module(value) if key == "id" or names_module(value) else None:
            plain = re.fullmatch(r"\w+(\.\w+)*", module)
            said = f"'{module}'" if plain else shown(module)
            yield module if plain else None, f"wants to import {said} for its environment"
        elif key != "id" and names_file(value):
            yield value, f"wants to open {shown(value)} as {path}"
    elif value and path == "logger.wandb.entity":
        yield value, f"wants to send its metrics to {shown(value)} at W&B"


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


def shown(value: Any) -> str:
    """For people; what is long is cut."""
    text = json.dumps(value, default=str)
    return text if len(text) < 60 else f"{text[:60]}…"


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
            found = _found(content, whole[1])
            return node if found is None else follow(found, depth + 1)
        text = REFERENCE.sub(lambda name: str(follow(_found(content, name[1]), depth + 1)), node)
        left[0] -= len(text)
        return text

    return follow(content, 0)


def _found(content: Any, name: str) -> Any:
    for key in name.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    return content
