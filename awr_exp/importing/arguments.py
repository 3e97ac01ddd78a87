"""What follows `awr-exp import`: files, and settings as name=value."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from awr_exp.errors import UserError
from awr_exp.importing.formats import MODULES
from awr_exp.importing.roles import COMMON
from awr_exp.vocabulary import near

ABOUT = {
    "id": "of the data set, such as mine/robot-v0",
    "observation": "columns of the observation: names and patterns, such as q_*,dq_*",
    "action": "columns of the action; one column of whole numbers from 0 is a choice",
    "reward": "column of the reward; reward=0 where there are none, for agent=bc",
    "terminated": "flag of a last step after which nothing has a value, as a goal or a fall",
    "truncated": "flag of a last step that a time limit, or who recorded, made the last",
    "episode": "column that tells episodes apart, a number or a name; file: each file is one",
    "step": "column of a number or a time that begins anew with each episode",
    "final": "flag of rows that are a final observation alone, as is_last of RLDS",
    "next_observation": "columns of what each step led to, in the order of those of the observation",
    "action_low": "least action, a number for all entries or one for each, such as -1,0",
    "action_high": "largest action; without bounds, those of the data are rounded outward",
    "env": "environment of the data: an option such as pendulum, or a registered name such as Hopper-v5",
    "ref_min_score": "return of a random policy, for normalised scores",
    "ref_max_score": "return of an expert policy",
}
NUMBERS = ("action_low", "action_high", "ref_min_score", "ref_max_score")
EPILOG = """
A row is a step: an observation, the action that was done in it, and the reward that it earned. Where an episode was cut
and what its last step led to is not in the data, the last row gives its observation alone. What no setting names is
found by its usual name, and the answer says what was found; name=none leaves a role empty. Formats are known by their
suffix: {formats}; CSV and Parquet need pyarrow (pip install 'awr-exp[tables]').

  awr-exp import logs.csv id=mine/robot-v0 observation=q_*,dq_* action=a_* reward=r terminated=done
  awr-exp import logs/*.npz id=mine/robot-v0 env=pendulum
"""


@dataclass(frozen=True)
class Arguments:
    """files: names of files and folders; roles: columns by role; numbers: settings of numbers, or of lists of some."""

    files: list[str]
    id: str
    env: str | None = None
    roles: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


def parse(words: Sequence[str] | None) -> Arguments:
    """The arguments, from those of the process unless they are given. Raises UserError for a wrong one."""
    settings = "\n".join(f"  {name + '=...':22}{about}" for name, about in ABOUT.items())
    parser = argparse.ArgumentParser(
        prog="awr-exp import",
        usage="awr-exp import FILE ... id=mine/robot-v0 [name=value ...]",
        description="Make a Minari data set of your own files.",
        epilog=f"settings:\n{settings}\n{EPILOG.format(formats=', '.join(MODULES))}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("words", nargs="*", metavar="FILE", help=f"a file of {', '.join(MODULES)}, or a folder of them")
    given, files = {}, []
    for word in parser.parse_args(words).words:
        name, equal, value = word.partition("=")
        if not equal or not re.fullmatch(r"\w+", name):
            files.append(word)
            continue
        if name not in ABOUT:
            raise UserError(f"there is no setting {name}{near(name, ABOUT) or ': --help lists them'}")
        if name in given or not value:
            raise UserError(f"{name} is given twice" if name in given else f"{name}= is empty: give a value")
        given[name] = value
    if not files:
        raise UserError("no file is named: name the files, or a folder of them, such as logs/*.npz")
    if "id" not in given:
        raise UserError("id is missing: give id=..., such as id=mine/robot-v0")
    numbers = {name: _numbers(name, given[name]) for name in NUMBERS if name in given}
    roles: dict[str, Any] = {name: given[name] for name in COMMON if name in given}
    return Arguments(files, given["id"], given.get("env"), roles, numbers)


def _numbers(name: str, text: str) -> float | list[float]:
    several = name.startswith("action")
    try:
        return [float(part) for part in text.split(",")] if several else float(text)
    except ValueError:
        raise UserError(f"{name} is {text}; it must be a number{', or some with commas' if several else ''}") from None
