"""What people and programs type, as Hydra understands it: before it reads a command line."""

import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from awr_exp.config import GROUPS, choices, options
from awr_exp.errors import UserError
from awr_exp.reading import read_yaml
from awr_exp.shell import key, sources

PARSER = get_args_parser()
PARSER.exit_on_error = False
FLAGS = {name: action for action in PARSER._actions for name in action.option_strings}


def understood(arguments: Sequence[str]) -> list[str]:
    """The same command line with options first and Python's None as null. Ends with one line where it means nothing."""
    here = os.getcwd()
    if here not in sys.path and not sys.flags.safe_path:
        # As with `python -m`, so that `awr-exp` finds modules of the current folder, too. It comes last, so that none
        # of them stands in for one that we import.
        sys.path.append(here)
    flags, overrides = _divided(arguments)
    for argument in overrides:
        if argument.startswith("-"):
            name = argument.lstrip("-")
            sys.exit(
                f"error: {argument}: settings are written without hyphens, as {name}; the yaml of a W&B sweep says so "
                'by command: ["${env}", "${interpreter}", "-m", "${program}", "${args_no_hyphens}"]'
            )
        group = key(argument)
        if group in GROUPS and (first := re.match(r"[^=]*=\{\s*['\"]?([\w.]+)['\"]?\s*:\s*([^,}]+)", argument)):
            one = f"{group}.{first[1]}={first[2].strip()}"
            sys.exit(f"error: {argument}: {group} is a group of options; give its values one by one, as {one}")
    try:
        _, unknown = PARSER.parse_known_args(flags)
    except ArgumentError as error:
        sys.exit(f"error: {error}")
    if unknown:
        sys.exit(f"error: there is no option {unknown[0]}: --hydra-help lists them")
    if {"-sc", "--shell-completion"} & set(flags):
        # Own options are offered, too: they are where the line that is to be completed says.
        flags, overrides = _divided([*arguments, *sources(os.environ.get("COMP_LINE", "").split())])
    # Hydra cannot delete a group of which several options are chosen.
    several = {f"~{group}": f"{group}=[]" for group in ("logger", "callback")}
    overrides = [several.get(one) or _without_none(one) for one in overrides]
    return [*_of_here(flags), *overrides]


def _divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's options with their values, and what else there is."""
    flags: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        one = rest.pop(0)
        name, joined, _ = one.partition("=")
        found = _matches(name)
        if not one.startswith("-") or ((one.startswith("--") or "." in name) and not found):
            others.append(one)
            continue
        flags.append(one)
        action = found[0] if len(found) == 1 else None
        if action is None or joined or action.nargs == 0 or not rest:
            continue
        if action.nargs is None or rest[0] in (action.choices or ()):
            flags.append(rest.pop(0))
    return flags, others


def _matches(name: str) -> list[Any]:
    """Hydra's options that a name, or its beginning, stands for."""
    if name in FLAGS:
        return [FLAGS[name]]
    return [action for flag, action in FLAGS.items() if name.startswith("--") and flag.startswith(name)]


def _of_here(flags: Sequence[str]) -> list[str]:
    """A relative --config-path is one of where it was typed; Hydra would look beside our own module."""
    found: list[str] = []
    for before, one in zip(["", *flags], flags, strict=False):
        name, joined, path = one.partition("=")
        if before in ("--config-path", "-cp") and Path(one).is_dir():
            one = str(Path(one).absolute())
        elif name in ("--config-path", "-cp") and joined and Path(path).is_dir():
            one = f"{name}={Path(path).absolute()}"
        found.append(one)
    return found


def _without_none(override: str) -> str:
    """Python's None is null, but for what is quoted."""
    name, equal, value = override.partition("=")
    if "None" not in value or "'" in value or '"' in value:
        return override
    return name + equal + re.sub(r"(?<![^\[({,:\s])None(?![^\])},\s])", "null", value)


def to_resume(arguments: Sequence[str]) -> list[str]:
    """A command line that goes on with a run, completed by the options of the run that it does not name.

    All settings of the run can then be changed; those of own parts, too, wherever these are now.
    """
    given = {key(argument): argument.partition("=")[2] for argument in arguments}
    if "resume" not in given:
        return list(arguments)
    folder = Path(str(value(f"resume={given['resume']}")))
    chosen = choices(folder)
    known = [
        f"{group}={option}"
        for group, option in chosen.items()
        if group not in given and group != "experiment" and option in options(group)
    ]
    own = [group for group, option in chosen.items() if option and option not in options(group)]
    saved = _settings(folder) if own else set()
    completed = []
    for argument in arguments:
        name = argument.partition("=")[0]
        if "." in name and name.partition(".")[0] in own:
            if name not in saved:
                sys.exit(f"error: there is no {name} in the configuration of the run to resume")
            # The option that stands in for the own one need not have this setting.
            argument = f"++{argument}"
        completed.append(argument)
    return [*completed, *known]


def value(override: str) -> Any:
    """What Hydra takes an override's value for; as it was written, where Hydra cannot read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        found = OverridesParser.create().parse_override(override).value()
        return OmegaConf.create({"value": found}).value
    except Exception:
        return override.partition("=")[2]


def _settings(folder: Path) -> set[str]:
    """Dotted names of all that is in the configuration of a run."""

    def below(node: Any, prefix: str) -> Iterator[str]:
        for name, one in node.items() if isinstance(node, dict) else ():
            yield prefix + str(name)
            yield from below(one, f"{prefix}{name}.")

    try:
        return set(below(read_yaml(folder / ".hydra" / "config.yaml"), ""))
    except UserError:
        return set()
