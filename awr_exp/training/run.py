"""One run of an experiment, which is one member of an agent."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from awr_exp import config
from awr_exp.errors import UserError
from awr_exp.results import Outcome
from awr_exp.training.logger import Logger
from awr_exp.training.progress import speaking
from awr_exp.training.recorder import Recorder

T = TypeVar("T")
R = TypeVar("R")
WAITING = 8
"""Threads for what mostly waits, as for W&B's process."""


def side_by_side(do: Callable[[T], R], each: Sequence[T]) -> list[R]:
    """What a function makes of each: of the first by itself, which may prepare something, of others side by side."""
    first, *others = each
    with ThreadPoolExecutor(WAITING) as pool:
        return [do(first), *pool.map(do, others)]


@dataclass
class Run:
    """One member of an agent as a run of its own: where it writes, and how far it has come.

    name: begins what is said of it on the screen where there are several; config: its whole configuration; metadata:
    what it takes to rebuild its policy, which goes into its checkpoints; best: mean return of its best evaluation;
    latest: the newest value of each metric; returns: of the episodes of its last evaluation; error: why it was given
    up; lost: what of it could not be kept although it was not given up; said: the names of the warnings that it has
    had; levels: metrics that are known before it begins, to compare it with.
    """

    folder: Path
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    logger: Logger | None = None
    recorder: Recorder | None = None
    best: float = -math.inf
    latest: dict[str, float] = field(default_factory=dict)
    returns: list[float] = field(default_factory=list)
    error: Exception | None = None
    lost: UserError | None = None
    said: set[str] = field(default_factory=set)
    levels: dict[str, float] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Its last metrics, and what went wrong with it, if anything did."""
        return Outcome(self.latest, self.error or self.lost)

    def part(self, name: str) -> "Run":
        """A run before this one, such as its baseline, in a folder within its own."""
        return Run(self.folder / name, self.name, self.config)

    def chosen(self, group: str) -> str:
        """What was chosen of a group, or the class where nobody chose by name."""
        made_of = str(self.config.get(group, {}).get("_target_", "unknown"))
        return config.choices(self.folder).get(group) or made_of.rpartition(".")[2]

    def speaking(self) -> AbstractContextManager[None]:
        """Whatever is logged inside is said of this run."""
        return speaking(self.folder, self.name)
