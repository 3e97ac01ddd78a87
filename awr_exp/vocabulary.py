"""What can be set, and the words that the yaml files have for it. Nothing here imports torch."""

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from awr_exp.config import CONF, SWEEPS

LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?P<value>(?: +[^\s#].*?)?)?(?: +# (?P<comment>.*))?")


@dataclass
class Setting:
    """A line of a yaml file: its value, as it is written there, and its comment."""

    value: str
    comment: str


@dataclass
class Option:
    """A yaml file: what its first lines say of it, and its settings by dotted name."""

    group: str
    name: str
    about: str = ""
    settings: dict[str, Setting] = field(default_factory=dict)


def options(folders: Iterable[Path] = ()) -> list[Option]:
    """Of all groups of ours, and of those in further folders of configurations."""
    found = [read(path, root) for root in (CONF, SWEEPS, *folders) for path in sorted(root.rglob("*.yaml"))]
    return [one for one in found if one.group and one.group not in ("wandb", "hydra/job_logging")]


@cache
def names() -> dict[str, list[str]]:
    """Every setting of ours, with the options that have it; and every group, with none."""
    found: dict[str, list[str]] = {name: [] for name in read(CONF / "config.yaml", CONF).settings}
    for option in options():
        found.setdefault(option.group, [])
        for name in option.settings if option.group not in ("experiment", "sweep") else ():
            found.setdefault(name, []).append(f"{option.group}={option.name}")
    return found


def read(path: Path, root: Path) -> Option:
    """The yaml file at `path` in a folder of configurations, read line by line."""
    option = Option(path.parent.relative_to(root).as_posix().strip("."), path.stem)
    lines = path.read_text(encoding="utf-8").splitlines()
    header = []
    while lines and lines[0].startswith("#"):
        header.append(lines.pop(0).lstrip("# "))
    package = next((line.split()[1] for line in header if line.startswith("@package")), option.group.replace("/", "."))
    option.about = " ".join(line for line in header if not line.startswith("@package"))
    prefix = "" if package in ("_global_", "") else f"{package}."
    for name, setting in _settings(lines):
        if not name.startswith(("hydra.", "defaults.")):
            option.settings[prefix + name] = setting
    return option


def _settings(lines: Iterable[str]) -> Iterator[tuple[str, Setting]]:
    """What has a value, by its dotted name in the file."""
    parents: list[tuple[int, str]] = []
    last: Setting | None = None
    for line in lines:
        if last and re.match(r" {20,}# ", line):  # a comment goes on
            last.comment += f" {line.strip(' #')}"
        match = LINE.fullmatch(line)
        if not match:
            continue
        indent, key, value = len(match["indent"]), match["key"], match["value"].strip()
        parents = [parent for parent in parents if parent[0] < indent]
        name = ".".join([*(parent for _, parent in parents), key])
        if not value:
            parents.append((indent, key))
        elif not (key.startswith("_") or value.startswith("${")):
            last = Setting(value, match["comment"] or "")
            yield name, last


def near(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who wrote a name that is not known, as the end of a sentence; or nothing."""
    known = list(known)
    leaf = name.rpartition(".")[2]
    same = [one for one in known if one.rpartition(".")[2] == leaf]
    close = same[:1] or difflib.get_close_matches(name, known, 1, 0.75)
    leaves = {one.rpartition(".")[2]: one for one in reversed(known)}
    close = close or [leaves[one] for one in difflib.get_close_matches(leaf, leaves, 1, 0.75)]
    return f"; did you mean {close[0]}?" if close else ""
