"""What each column of a table is: as it is said, or by the names that are common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from pathlib import Path

from awr_exp.errors import UserError
from awr_exp.importing.table import Shapes
from awr_exp.vocabulary import near

COMMON = {
    "observation": (
        *("observation", "observations", "obs"),
        *("observation.*", "observation/*", "observations/*", "obs/*", "obs_*", "observation_*"),
        *("state", "states", "state_*"),
    ),
    "action": ("action", "actions", "action_*", "act_*", "a_*"),
    "reward": ("reward", "rewards", "next.reward", "r"),
    "terminated": (
        *("terminated", "terminations", "terminal", "terminals", "is_terminal", "next.terminated"),
        *("done", "dones", "next.done"),
    ),
    "truncated": ("truncated", "truncations", "timeout", "timeouts", "next.truncated"),
    "episode": ("episode", "episode_id", "episode_index", "ep"),
    "step": ("step", "timestep", "time_step", "t", "frame_index"),
    "final": ("is_last",),
    "next_observation": (),
}
"""The columns that a role is looked for in, unless they are named. The first of these that there are is taken; next
observations are those that are called as the observations with `next_` before it."""
UNCLEAR = ("done", "dones", "next.done")
"""Flags that do not say what ended an episode."""
SEVERAL = ("observation", "next_observation", "action")
"""Roles that several columns may have together; they are laid side by side."""
NONE = "none"
"""Says that no column has a role."""
FILE = "file"
"""Stands for the column of episodes where each file is one."""


@dataclass(frozen=True)
class Roles:
    """columns: those of each role, in their order; constant: the reward, where it is a number and no column."""

    columns: Mapping[str, Sequence[str]]
    constant: float | None = None

    @property
    def names(self) -> list[str]:
        """All columns that have a role, each once."""
        return list(dict.fromkeys(name for own in self.columns.values() for name in own))

    @property
    def ends(self) -> bool:
        """Whether some column says where episodes end."""
        return bool(self.columns.keys() & {"terminated", "truncated", "episode", "step", "final"})


def assign(path: Path, shapes: Shapes, given: Mapping[str, str]) -> Roles:
    """The roles of the columns of the table in `path`; given: columns or patterns by role, with commas between them.

    Raises UserError where a column is missing, or has two roles.
    """
    constant = _number(given.get("reward", ""))
    found: dict[str, list[str]] = {}
    for role in COMMON:
        said = given.get(role)
        if said is None:
            found[role] = _common(shapes, role) or _next(shapes, role, found)
        elif said not in (NONE, FILE) and not (role == "reward" and constant is not None):
            found[role] = _named(path, shapes, role, said)
    found = {role: own for role, own in found.items() if own}
    for role in ("observation", "action", "reward"):
        if role not in found and not (role == "reward" and constant is not None):
            zero = ", or reward=0 where there are none" if role == "reward" else ""
            raise UserError(
                f"{path} has no column known as {role}: give {role}=...{zero}; {_listed(shapes)}{near(role, shapes)}"
            )
    _check_once(path, found)
    return Roles(found, constant)


def _common(shapes: Shapes, role: str) -> list[str]:
    """The columns that usually have a role. Images stay out of patterns: they are no numbers to lay side by side."""
    for pattern in COMMON[role]:
        for name in shapes:
            if _usual(name) == pattern:
                return [name]
        if own := [name for name, shape in shapes.items() if fnmatchcase(_usual(name), pattern) and len(shape) < 2]:
            return own
    return []


def _usual(name: str) -> str:
    """A name as usual ones are written; a capital letter alone is another name, such as T for a temperature."""
    return name.lower() if len(name) > 1 else name


def _next(shapes: Shapes, role: str, found: Mapping[str, Sequence[str]]) -> list[str]:
    own = [f"next_{name}" for name in found["observation"]] if role == "next_observation" else []
    return own if all(name in shapes for name in own) else []


def _named(path: Path, shapes: Shapes, role: str, said: str) -> list[str]:
    found: list[str] = []
    for pattern in filter(None, map(str.strip, said.split(","))):
        # Brackets are of names such as q[0].
        escaped = pattern.replace("[", "[[]")
        own = [pattern] if pattern in shapes else [name for name in shapes if fnmatchcase(name, escaped)]
        if not own:
            raise UserError(f"{path} has no column {pattern} for {role}{near(pattern, shapes)}; {_listed(shapes)}")
        found += own
    if twice := next((name for name in found if found.count(name) > 1), None):
        raise UserError(f"{role}={said} names column {twice} twice")
    if len(found) > 1 and role not in SEVERAL:
        raise UserError(f"{role}={said} names {len(found)} columns; it must be one")
    return found


def _check_once(path: Path, found: Mapping[str, Sequence[str]]) -> None:
    owner: dict[str, str] = {}
    for role in (*SEVERAL, "reward"):
        for name in found.get(role, ()):
            if name in owner:
                raise UserError(f"{path}: column {name} is both {owner[name]} and {role}: name the columns of each")
            owner[name] = role


def entries(roles: Roles, shapes: Shapes, role: str) -> list[str]:
    """What the entries of a role's columns, laid side by side, are called."""
    found = []
    for name in roles.columns.get(role, [role]):
        width = prod(shapes.get(name, ()))
        found += [name] if width == 1 else [f"{name}[{entry}]" for entry in range(width)]
    return found


def _listed(shapes: Shapes) -> str:
    names = list(shapes)
    return f"its columns are {', '.join(names[:20]) or 'none'}{', ...' if len(names) > 20 else ''}"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
