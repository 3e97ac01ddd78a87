"""What can be set, and where: the yaml files of folders of configurations, each read once, without torch."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import yaml

from awr_exp.ranges import Count, Range, Text, Texts, Whole, matches
from awr_exp.reading import Loader
from awr_exp.signatures import parameters

MOST_THREADS = 1024
"""More than any machine has cores; of many more, starting them ends the process."""
MARKERS = {
    "_target_": Annotated[
        str,
        Range(matches(r"[^\W\d]\w*(\.[^\W\d]\w*)+"), "the dotted name of what is called, such as my_module.MyNetwork"),
    ],
    "_partial_": bool,
}
"""What makes a node a part: what is called, and whether with more than its values."""
RUN: dict[str, Any] = {
    "seed": Whole,
    "device": Annotated[str, Range(matches(r"auto|cpu|cuda(:\d{1,3})?"), "auto, cpu, cuda or cuda:<number>")],
    "threads": Annotated[
        int, Range(lambda v: type(v) is int and 1 <= v <= MOST_THREADS, f"a whole number from 1 to {MOST_THREADS}")
    ] | None,
    "resume": Text | None,
    "resume_policy": Text | None,
    "trust": Texts,
    "objective": Text | None,
}  # fmt: skip
"""The settings of config.yaml, which are of no part."""
POLICY: dict[str, Any] = {"best_of": Count}
"""The settings under `policy`."""
SWEEP: dict[str, Any] = {"resume": Text | None}
"""The settings under `sweep`."""
REFERENCE = re.compile(r"(?<!\\)\$\{([A-Za-z_]\w*(?:\.\w+)*)\}")
"""A reference to another value of the configuration; what else may stand in such braces can look at the machine."""


@dataclass
class Setting:
    """A setting as a yaml file has it: its value, as it is written there, and its comment."""

    value: str
    comment: str


@dataclass
class Option:
    """A yaml file.

    place: the dotted name of where its content goes, "" for the whole; about: its first comment; content: all that it
    says, with what it takes over from other options of its group; settings: by dotted name, those that it writes.
    """

    group: str
    name: str
    place: str
    about: str
    content: dict[str, Any]
    settings: dict[str, Setting]


@dataclass
class Kind:
    """What may stand in a place.

    targets: what may be called, and its `_partial_`; parts: names of places in it, and the kinds of those; own: the
    settings of what is no part, with their annotations.
    """

    targets: dict[str, bool] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    own: dict[str, Any] = field(default_factory=dict)

    def settings(self, target: Any = None) -> dict[str, Any]:
        """The settings of one part, or of any that may stand here, with their annotations."""
        targets = self.targets if target is None else [target]
        return self.own | {name: hint for one in targets for name, hint in parameters(one).items() if hint}


@cache
def options(*roots: Path) -> tuple[Option, ...]:
    """The options of all groups in these folders; primary ones, such as config.yaml, have the group ""."""
    found = [_read(path, root) for root in roots for path in sorted(root.rglob("*.yaml"))]
    return tuple(one for one in found if one.group not in ("wandb", "hydra/job_logging", "hydra/hydra_logging"))


@cache
def names(*roots: Path) -> dict[str, list[str]]:
    """Every setting, with the options that have it; and every group, with none."""
    found: dict[str, list[str]] = {name: [] for one in options(*roots) if one.name == "config" for name in one.settings}
    for option in options(*roots):
        if option.group:
            found.setdefault(option.group, [])
        for name in option.settings if option.group not in ("", "experiment", "sweep") else ():
            found.setdefault(name, []).append(f"{option.group}={option.name}")
    return found


@cache
def kinds(conf: Path) -> dict[str, Kind]:
    """The kinds of parts by name, as the yaml files in `conf` say; "" is the whole configuration of a run."""
    chosen = [one for one in options(conf) if "/" not in one.group and one.group not in ("", "experiment")]
    groups = {one.group for one in chosen}
    # A baseline is an agent, and what a run begins with is trained by a trainer of its own.
    known = {"": Kind(own=RUN, parts={"sweep": "sweep", "policy": "policy", "baseline": "agent"})}
    known |= {"policy": Kind(own=POLICY), "sweep": Kind(own=SWEEP)}
    known["trainer"] = Kind(parts={"pretrain": "trainer"})
    for option in chosen:
        for place, node in ({option.place: option.content} if option.place else option.content).items():
            if place not in ("defaults", "baseline"):
                known[""].parts[place] = place
                _learn(known, place, node, groups)
    return known


def _learn(known: dict[str, Kind], name: str, node: dict[str, Any], groups: set[str]) -> None:
    kind = known.setdefault(name, Kind())
    if "_target_" in node:
        kind.targets[node["_target_"]] = node.get("_partial_", False)
    for key, value in node.items():
        reference = REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if reference and reference[1] in groups:
            kind.parts[key] = reference[1]
        elif isinstance(value, dict) and "_target_" in value:
            kind.parts[key] = f"{name}.{key}"
            _learn(known, kind.parts[key], value, groups)


def is_left_out(node: Any) -> bool:
    """Whether there is nothing in a place, or nothing but nulls."""
    return not node or (isinstance(node, dict) and all(v is None and str(k)[:1] != "_" for k, v in node.items()))


def _read(path: Path, root: Path) -> Option:
    text = path.read_text(encoding="utf-8")
    group, lines = path.parent.relative_to(root).as_posix().strip("."), text.splitlines()
    header = [line.lstrip("# ") for line in takewhile(lambda line: line.startswith("#"), lines)]
    package = next((line.split()[1] for line in header if line.startswith("@package")), group.replace("/", "."))
    place = "" if package == "_global_" else package
    try:
        node = yaml.compose(text, Loader)
    except yaml.YAMLError:  # of somebody's own, which Hydra says if it is chosen
        node = None
    is_mapping = isinstance(node, yaml.MappingNode)
    content: dict[str, Any] = Loader("").construct_document(node) if is_mapping else {}
    for base in content.get("defaults", []):
        if isinstance(base, str) and base != "_self_" and (other := path.with_stem(base)).exists():
            content = _read(other, root).content | content
    prefix = f"{place}." if place else ""
    settings = {prefix + name: setting for name, setting in _settings(node, text, lines)} if is_mapping else {}
    about = " ".join(line for line in header if not line.startswith("@package"))
    return Option(group, path.stem, place, about, content, settings)


def _settings(node: yaml.Node, text: str, lines: list[str], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """What has a value of its own in a yaml file, by its dotted name there."""
    for key, value in node.value:
        name, written = prefix + key.value, text[value.start_mark.index : value.end_mark.index]
        if name in ("defaults", "hydra") or key.value.startswith("_") or written.startswith("${") or not written:
            continue
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _settings(value, text, lines, f"{name}.")
            continue
        line = value.end_mark.line
        comments = re.findall(r"^ +# (.*)", lines[line][value.end_mark.column :])
        # A comment goes on in lines of its own.
        comments += [one.strip(" #") for one in takewhile(re.compile(r" {20,}# ").match, lines[line + 1 :])]
        yield name, Setting(written, " ".join(comments))


def near(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who wrote a name that is not known, as the end of a sentence; or nothing."""
    known = list(known)
    leaf = name.rpartition(".")[2]
    same = [one for one in known if one.rpartition(".")[2] == leaf]
    close = same[:1] or difflib.get_close_matches(name, known, 1, 0.75)
    leaves = {one.rpartition(".")[2]: one for one in reversed(known)}
    close = close or [leaves[one] for one in difflib.get_close_matches(leaf, leaves, 1, 0.75)]
    return f"; did you mean {close[0]}?" if close else ""
