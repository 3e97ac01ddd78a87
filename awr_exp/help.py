"""What --help says: every command, every group and every setting in a line, in the words of the yaml files."""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from awr_exp.config import CONF, SWEEPS
from awr_exp.ranges import of
from awr_exp.vocabulary import Option, Setting, kinds, options


@dataclass(frozen=True)
class Command:
    """A command beside training: what follows its name, what it does, and the module that is run for it."""

    arguments: str
    about: str
    module: str


SUBCOMMANDS = {
    "report": Command("FOLDER ...", "the report of runs or sweeps: a page, figures, and an answer", "awr_exp.report"),
    "list": Command("[FOLDER]", "the runs and sweeps in a folder, newest first", "awr_exp.listing"),
    "compare": Command("A B", "two runs side by side: settings, results and curves", "awr_exp.compare"),
    "evaluate": Command("RUN ...", "returns of trained policies, with intervals, and films", "awr_exp.evaluate"),
    "export": Command("RUN FILE", "a policy as one file, .onnx, .pt2 or .npz, that acts alone", "awr_exp.exporting"),
    "import": Command("FILE ... id=...", "a Minari data set of your own files", "awr_exp.importing"),
    "describe": Command("id=...", "what a data set is like, and what looks wrong with it", "awr_exp.describe"),
    "collect": Command("policy=... dataset_id=...", "a Minari data set from any policy", "awr_exp.collect"),
    "dashboard": Command("[FOLDER]", "a W&B workspace for the runs, or a page here", "awr_exp.dashboard"),
}
WIDTH = 44


def text(config: str = "config") -> str:
    """The help of the command whose primary configuration this is."""
    every = sorted(options(CONF, SWEEPS, *_own_folders()), key=lambda option: option.group)
    own = next(option for option in every if (option.group, option.name) == ("", config))
    defaults = [item for entry in own.content["defaults"] if isinstance(entry, dict) for item in entry.items()]
    chosen = {group.split()[-1].strip("/"): re.findall(r"\w+", str(names)) for group, names in defaults}
    found = [option for option in every if option.group]
    parts = []
    if config == "config":
        parts += ["Commands:", _line("awr-exp", "train, as python -m awr_exp.main does")]
        parts += [_line(f"awr-exp {name} {one.arguments}".rstrip(), one.about) for name, one in SUBCOMMANDS.items()]
        parts += [""]
    else:
        found = [option for option in found if option.group in chosen]
    groups = {group: list(some) for group, some in groupby(found, lambda option: option.group)}
    parts += ["Groups, each with its options (group=option; * is what is chosen by itself):"]
    for group, some in groups.items():
        parts.append(f"  {group}")
        for option in some:
            star = " *" if option.name in chosen.get(group, ()) else ""
            parts.append(_line(f"  {group}={option.name}{star}", option.about))
    parts += ["", "Settings (name=value):"]
    parts += [_setting(name, setting) for name, setting in own.settings.items()]
    for group, some in groups.items():
        if group not in ("experiment", "sweep", "baseline"):
            parts += _settings(some, chosen.get(group, []))
    # For the template of Hydra that this is a part of.
    return "\n".join(parts).replace("$", "$$")


def _own_folders() -> list[Path]:
    """Folders of configurations that the command line names."""
    named = re.findall(r"(?:--config-dir|-cd)[ =](\S+)", " ".join(sys.argv[1:]))
    return [Path(one) for one in named if Path(one).is_dir()]


def _settings(some: list[Option], chosen: list[str]) -> Iterator[str]:
    """The settings of a group, each once: as the chosen option has it, or else with an option that has it."""
    told: dict[str, str] = {}
    for option in sorted(some, key=lambda option: option.name not in chosen):
        only = "" if option.name in chosen else f" ({option.group}={option.name})"
        # What it brings for other groups is theirs.
        place = "recorder" if option.group == "collect" else option.group.replace("/", ".")
        for name, setting in option.settings.items():
            if not name.startswith(f"{place}."):
                continue
            told.setdefault(name, _setting(name, setting, only))
    yield from told.values()


def _setting(name: str, setting: Setting, only: str = "") -> str:
    place, _, leaf = name.rpartition(".")
    kind = kinds(CONF).get(place)
    wanted = of(kind.settings().get(leaf)) if kind else None
    return _line(f"{name}={setting.value}", (setting.comment or str(wanted or "")) + only)


def _line(name: str, about: str) -> str:
    width = max(80, shutil.get_terminal_size().columns)
    whole = f"  {name:<{WIDTH}} {about}".rstrip()
    indent = " " * (WIDTH + 3)
    return textwrap.fill(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
