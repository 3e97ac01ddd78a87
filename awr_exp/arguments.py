"""What people and programs type, as Hydra understands it: before it reads a command line."""

import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import OmegaConf

from awr_exp.config import GROUPS, choices, options
from awr_exp.errors import UserError
from awr_exp.guard import value_at
from awr_exp.reading import read_yaml
from awr_exp.shell import key, sources

PARSER = get_args_parser()
PARSER.exit_on_error = False
PLUGINS = {"joblib": "sweep", "submitit_local": "sweep", "submitit_slurm": "sweep", "ray": "ray"}
"""Hydra's published launchers, and the extra that brings each."""
LOGGERS = ("tensorboard", "mlflow")
"""Loggers that need a package, and an extra that brings it, of the same name."""


def understood(arguments: Sequence[str]) -> list[str]:
    """The same command line with options last and Python's None as null. Ends with one line where it means nothing."""
    find_own()
    if {"-sc", "--shell-completion"} & set(arguments):
        # Own options are offered, too: they are where the line that is to be completed says.
        arguments = [*arguments, *sources(os.environ.get("COMP_LINE", "").split())]
    try:
        parsed, unknown = PARSER.parse_known_intermixed_args(arguments)
    except ArgumentError as error:
        sys.exit(f"error: {error}")
    for one in [*parsed.overrides, *unknown]:
        _check(one)
    options = [one for one in arguments if one not in parsed.overrides]
    if parsed.config_path and Path(parsed.config_path).is_dir():
        # A relative one is of where it was typed; Hydra would look beside our own module.
        options.append(f"--config-path={Path(parsed.config_path).absolute()}")
    # Hydra cannot delete a group of which several options are chosen.
    several = {f"~{group}": f"{group}=[]" for group in ("logger", "callback")}
    return [*(several.get(one) or _without_none(one) for one in parsed.overrides), *options]


def find_own() -> None:
    """As with `python -m`, so that `awr-exp` finds modules of the current folder, too."""
    here = os.getcwd()
    if here not in sys.path and not sys.flags.safe_path:
        # It comes last, so that none of them stands in for one that we import.
        sys.path.append(here)


def _check(argument: str) -> None:
    """End with one line for what Hydra would answer with a page: options, settings and launchers that are not there."""
    name = argument.lstrip("-")
    if argument.startswith("--") or (argument.startswith("-") and "." in name):
        sys.exit(
            f"error: {argument}: settings are written without hyphens, as {name}; the yaml of a W&B sweep says so "
            'by command: ["${env}", "${interpreter}", "-m", "${program}", "${args_no_hyphens}"]'
        )
    if argument.startswith("-"):
        sys.exit(f"error: there is no option {argument}: --hydra-help lists them")
    group, (_, equal, option) = key(argument), argument.partition("=")
    if group == "hydra/launcher" and option in PLUGINS and not _installed(f"hydra_{option.partition('_')[0]}_launcher"):
        sys.exit(f"error: {argument} is not installed: pip install 'awr-exp[{PLUGINS[option]}]'")
    for name in set(re.findall(r"\w+", option)).intersection(LOGGERS) if group == "logger" else ():
        if find_spec(name) is None:
            sys.exit(f"error: logger={name} needs a package that is not installed: pip install 'awr-exp[{name}]'")
    if group not in GROUPS:
        return
    if first := re.match(r"\{\s*['\"]?([\w.]+)['\"]?\s*:\s*([^,}]+)", option):
        one = f"{group}.{first[1]}={first[2].strip()}"
        sys.exit(f"error: {argument}: {group} is a group of options; give its values one by one, as {one}")
    several = option.startswith("[") and group not in ("logger", "callback", "experiment")
    if (known := options(group)) and (several or (equal and option in ("null", ""))):
        sys.exit(f"error: {argument}: choose {group}=<one of {', '.join(known)}> or leave it out")


def _installed(plugin: str) -> bool:
    try:
        return find_spec(f"hydra_plugins.{plugin}") is not None
    except ModuleNotFoundError:  # nor is any other
        return False


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
    saved: Any = {}
    with suppress(UserError):
        saved = read_yaml(folder / ".hydra" / "config.yaml") if own else {}
    completed = []
    for argument in arguments:
        place, _, leaf = argument.partition("=")[0].rpartition(".")
        if place.partition(".")[0] in own:
            if leaf not in (value_at(saved, place) or ()):
                sys.exit(f"error: there is no {place}.{leaf} in the configuration of the run to resume")
            # The option that stands in for the own one need not have this setting.
            argument = f"++{argument}"
        completed.append(argument)
    return [*known, *completed]


def value(override: str) -> Any:
    """What Hydra takes an override's value for; as it was written, where Hydra cannot read it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        found = OverridesParser.create().parse_override(override).value()
        return OmegaConf.create({"value": found}).value
    except Exception:
        return override.partition("=")[2]
