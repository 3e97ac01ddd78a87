"""All that is said of a data set before anything is trained: numbers, and what looks wrong about them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp import layout
from awr_exp.data import facts, remarks
from awr_exp.data.columns import Columns, columns, histogram, keys, on_bounds, repeated
from awr_exp.data.content import BOUND_TOLERANCE
from awr_exp.data.transitions import Transitions
from awr_exp.envs import source
from awr_exp.networks.actions import ActionInputs

NUMBERS = 2**22
"""Numbers that are looked at in one piece."""
BINS = 10
"""Of a histogram, about."""
SHOWN = 2_000
"""Episodes whose returns a page can show one by one."""

Histogram = tuple[list[float], list[int]]


@dataclass(frozen=True)
class Spread:
    """How some numbers, one an episode, are spread; histogram: edges, and the counts between them."""

    low: float
    median: float
    mean: float
    high: float
    std: float
    histogram: Histogram

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Spread":
        own = values.astype(np.float64)
        low, median, mean, high, std = (float(one(own)) for one in (np.min, np.median, np.mean, np.max, np.std))
        return cls(low, median, mean, high, std, histogram(own, BINS))


@dataclass(frozen=True)
class Column:
    """A column of numbers, one a step. Of actions also their bounds, None where there is none, and the shares on them.

    farthest: how far from the mean a number is at the most, in standard deviations.
    """

    name: str
    low: float
    mean: float
    high: float
    std: float
    farthest: float
    bounds: tuple[float | None, float | None] = (None, None)
    on_low: float = 0.0
    on_high: float = 0.0

    @property
    def constant(self) -> bool:
        return self.low == self.high


@dataclass(frozen=True)
class Description:
    """A data set in numbers, in the units of its task.

    terminated: the share of its episodes that end by themselves; all others are truncated, or were cut. choices: the
    share of each discrete action, in the environment's numbers; of several choices, that of each, with the name of what
    is chosen. duplicate_episodes: those that are the same as an
    earlier one; duplicate_steps: those that are, whole episodes left out; still: the share of steps in which the
    observation stays as it is; rewarded: the share of steps whose reward is not 0. coverage, reach, explained: see
    `awr_exp.data.facts`. order: the returns of episodes as they lie in the data set, or of some, evenly spaced.
    remarks: what looks wrong, and what that will mean.
    """

    id: str
    environment: str | None
    task: str
    episodes: int
    steps: int
    length: Spread
    returns: Spread
    references: tuple[float, float] | None
    scores: tuple[float, float] | None
    terminated: float
    reward: Column
    rewarded: float
    observations: list[Column]
    actions: list[Column]
    choices: dict[int | str, float]
    duplicate_episodes: int
    duplicate_steps: int
    still: float
    coverage: dict[str, float]
    explained: dict[str, float]
    order: list[float]
    remarks: list[str]

    @property
    def truncated(self) -> float:
        return 1 - self.terminated


def describe(data: Transitions, heard: Sequence[str] = ()) -> Description:
    """Look at a whole data set, in pieces, whose rewards are in their own units; heard: what reading it said."""
    info, spec = data.info, data.stored
    scores = [info.normalized_score(one) for one in (info.return_mean, float(info.episode_returns.max()))]
    low, high = (info.ref_min_score, info.ref_max_score) if scores[0] is not None else (None, None)
    of_observations = columns(data.schema.read(rows, "obs") for rows in _packed(data))
    laid_out = layout.column_names(spec.observation, spec.obs_dim) if spec.observation else ()
    names = info.observation_columns or laid_out or [str(entry) for entry in range(spec.obs_dim)]
    order = info.episode_returns[np.linspace(0, info.episodes - 1, min(SHOWN, info.episodes)).astype(np.int64)]
    episodes, steps = _duplicates(data)
    found = Description(
        id=info.id,
        environment=source.described(info.env_spec) if info.env_spec else None,
        task=repr(spec)[5:-1],
        episodes=info.episodes,
        steps=len(data),
        length=Spread.of(data.lengths.numpy()),
        returns=Spread.of(info.episode_returns),
        references=None if low is None or high is None else (low, high),
        scores=None if scores[0] is None or scores[1] is None else (scores[0], scores[1]),
        terminated=sum(int(one.sum()) for one in _pieces(data, "terminated")) / len(data.lengths),
        reward=_named(["reward"], columns(one.unsqueeze(1) for one in _pieces(data, "reward")))[0],
        rewarded=sum(int((one != 0).sum()) for one in _pieces(data, "reward")) / len(data),
        observations=_named(list(names), of_observations),
        actions=[] if spec.discrete else _actions(data),
        choices=_choices(data) if spec.discrete else {},
        duplicate_episodes=episodes,
        duplicate_steps=steps,
        still=_still(data),
        coverage=facts.coverage(data),
        explained=facts.explained(data),
        order=order.tolist(),
        remarks=[],
    )
    return replace(found, remarks=list(dict.fromkeys([*heard, *remarks.about(found, data)])))


def _rows(data: Transitions) -> int:
    """Rows of a piece."""
    return max(1, NUMBERS // data.schema.width)


def _named(names: Sequence[str], found: Columns) -> list[Column]:
    numbers = (each.tolist() for each in (found.low, found.mean, found.high, found.std, found.farthest))
    return [Column(*each) for each in zip(names, *numbers, strict=True)]


def _pieces(data: Transitions, name: str) -> Iterator[Tensor]:
    """A column [N, ...] of the transitions, in pieces."""
    size = _rows(data)
    return (data.column(name, begin, begin + size) for begin in range(0, len(data), size))


def _packed(data: Transitions) -> Iterator[Tensor]:
    """All packed rows, in pieces."""
    size, end = _rows(data), len(data) + len(data.lengths)
    return (data.between(begin, min(begin + size, end)) for begin in range(0, end, size))


def _steps(data: Transitions) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of all transitions, and those below them, in pieces."""
    for rows in torch.arange(len(data)).split(_rows(data)):
        at = data.places(rows)
        yield data.held[at], data.held[at + 1]


def _actions(data: Transitions) -> list[Column]:
    spec = data.spec
    low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
    names = data.info.action_columns or spec.action_names
    own = _named(names, columns(_pieces(data, "action")))
    on = columns(torch.cat(on_bounds(one, low, high, BOUND_TOLERANCE), 1) for one in _pieces(data, "action"))
    at_low, at_high = (part.tolist() for part in on.mean.chunk(2))
    ends = [[end if np.isfinite(end) else None for end in side.tolist()] for side in (low, high)]
    return [
        replace(column, bounds=bounds, on_low=first, on_high=last)
        for column, bounds, first, last in zip(own, zip(*ends, strict=True), at_low, at_high, strict=True)
    ]


def _choices(data: Transitions) -> dict[int | str, float]:
    spec, as_inputs = data.spec, ActionInputs(data.spec)
    chosen = torch.zeros(as_inputs.size, dtype=torch.float64)
    for piece in _pieces(data, "action"):
        chosen += as_inputs(piece, chosen).sum(0)
    starts = np.ravel(spec.starts).tolist()
    numbers = [start + number for start, count in zip(starts, spec.counts, strict=True) for number in range(count)]
    if spec.action_shape == ():
        return dict(zip(numbers, (chosen / len(data)).tolist(), strict=True))
    called = data.info.action_columns or spec.action_names
    names = [name for name, count in zip(called, spec.counts, strict=True) for _ in range(count)]
    keys = [f"{name}={number}" for name, number in zip(names, numbers, strict=True)]
    return dict(zip(keys, (chosen / len(data)).tolist(), strict=True))


def _still(data: Transitions) -> float:
    """The share of steps whose observation lies in its row as the next one does."""
    width, count = data.schema.columns["action"], 0
    for rows, below in _steps(data):
        count += int((rows[:, :width] == below[:, :width]).all(1).sum())
    return count / len(data)


def _duplicates(data: Transitions) -> tuple[int, int]:
    """The episodes that are the same as an earlier one, and the steps of all others that are the same as one there."""
    width, own = data.schema.columns["action"], []
    for rows, below in _steps(data):
        own.append(keys(torch.cat([rows, below[:, :width]], 1).numpy()))
    of_steps = np.concatenate(own)
    ends = data.lengths.numpy().cumsum()
    parts = np.split(of_steps, ends[:-1])
    first = {part.tobytes(): number for number, part in reversed(list(enumerate(parts)))}
    kept = np.sort(np.fromiter(first.values(), np.int64, len(first)))
    return len(parts) - len(kept), repeated(np.concatenate([parts[number] for number in kept]))
