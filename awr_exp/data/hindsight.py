"""Hindsight relabelling (Andrychowicz et al. 2017, arXiv 1707.01495): episodes are told with goals that they came to.

A copy of an episode wants what was achieved in a later step of it, chosen at random, and is rewarded for that. It ends
where its goal ends an episode, and is an episode like any other for whoever learns from it.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.packing import check_memory
from awr_exp.data.schema import STORED
from awr_exp.data.transitions import Transitions
from awr_exp.envs.goals import INSTEAD, Judge
from awr_exp.errors import UserError
from awr_exp.layout import Entry, sizes
from awr_exp.seeding import numpy_generator

log = logging.getLogger(__name__)

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"
"""The keys of an observation, as gymnasium-robotics has them."""
ROUNDING = 1e-3
"""By how much a reward may differ from the recorded one, which is float32, as its goals are."""
FEW = 0.01
"""The share of steps that may differ more, as those do that are on the very border of a goal."""


@dataclass(frozen=True)
class _Copy:
    """A copy of each of E episodes: the packed rows [E] of the goals, lengths [E], and outcomes [N] of all steps."""

    goals: Tensor
    lengths: NDArray[np.int64]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]


def relabelled(data: Transitions, copies: int, judge: Judge) -> Transitions:
    """The data, and after them so many copies of each episode, one round after the other.

    The copies are the same whenever they are made. Raises UserError where observations have no goals, where the judge
    does not say of the data's own goals what was recorded, or where the copies do not fit the memory.
    """
    achieved, desired = goals_of(data)
    _check(data, judge, achieved, desired)
    made = [_copy(data, judge, achieved, number) for number in range(copies)]
    lengths = np.concatenate([data.lengths.numpy(), *(one.lengths for one in made)])
    packed = _room(data, copies, int((lengths + 1).sum()))
    begin = len(data.packed)
    for one in made:
        end = begin + int((one.lengths + 1).sum())
        _write(data, one, achieved, desired, packed[begin:end])
        begin = end
    info = replace(data.info, hindsight=copies, fingerprint=f"{data.info.fingerprint}/hindsight {copies}")
    told = Transitions(packed, torch.as_tensor(lengths), data.stored, info, data.origin.repeat(1 + copies))
    log.info(
        "data set '%s': %d steps, and %d of episodes with goals that they came to (dataset.hindsight=%d)",
        *(info.id, len(data), len(told) - len(data), copies),
    )
    return told


def goals_of(data: Transitions) -> tuple[Entry, Entry]:
    """The parts of an observation that are the achieved goal and the desired one. Raises UserError where none are."""
    found = {
        key: [entry for entry in data.stored.observation if entry.path[:1] == (key,)] for key in (ACHIEVED, DESIRED)
    }
    said = f"data set '{data.info.id}'"
    for key, entries in found.items():
        if not entries:
            raise UserError(
                f"{said} has observations without {key}, so that no other goal can be put into them: leave out "
                f"dataset.hindsight, or write it anew with a Dict of observation, {ACHIEVED} and {DESIRED}"
            )
        if entries[0].path != (key,):
            raise UserError(f"{said} has parts in its {key}, and goals are one part each: leave out dataset.hindsight")
    achieved, desired = (entries[0] for entries in found.values())
    if replace(achieved, path=()) != replace(desired, path=()) or achieved.kept != desired.kept:
        shapes = [f"{key} of {entry.kept} {sizes(entry)}" for key, entry in ((ACHIEVED, achieved), (DESIRED, desired))]
        raise UserError(f"{said} has {' and '.join(shapes)}, which are not alike: leave out dataset.hindsight")
    return achieved, desired


def _values(data: Transitions, goal: Entry, rows: Tensor) -> NDArray[Any]:
    """The goals [n, ...] at packed rows, as the environment has them."""
    return goal.values(data.schema.view(data.packed, "obs", *goal.path)[rows].float().numpy())


def _check(data: Transitions, judge: Judge, achieved: Entry, desired: Entry) -> None:
    """Raises UserError unless the judge says of the data's own goals what was recorded; warns where it seldom does."""
    reward, terminated, _ = judge.outcome(*(_values(data, goal, data.rows + 1) for goal in (achieved, desired)))
    own, ended = data.info.reward_unit.own(data.reward).double().numpy(), data.terminated.numpy()
    said = {
        "rewards": ("{:g}", reward, own, np.isclose(reward, own, ROUNDING, ROUNDING)),
        "terminations": ("{}", terminated, ended, terminated == ended),
    }
    for name, (form, found, recorded, same) in said.items():
        if same.all():
            continue
        step = int((~same).argmax())
        ends = data.lengths.numpy().cumsum()
        episode = int(np.searchsorted(ends, step, "right"))
        place = f"step {step - int(ends[episode] - data.lengths[episode])} of episode {episode}"
        values = f"{form.format(recorded[step])} there, and {form.format(found[step])} by {judge.name}"
        problem = f"data set '{data.info.id}' has other {name} than its goals say in {(~same).mean():.2%} of its steps"
        if (~same).mean() > FEW:
            raise UserError(f"{problem}, the first in {place}: {values}; where they depend on more, {INSTEAD}")
        log.warning("warning: %s, the first in %s: %s", problem, place, values)


def _copy(data: Transitions, judge: Judge, achieved: Entry, number: int) -> _Copy:
    """What the episodes are with other goals; number: of this copy of each."""
    lengths = data.lengths.numpy()
    starts = lengths.cumsum() - lengths
    later = numpy_generator(0, "hindsight", number).integers(1, lengths + 1)
    goals = data.rows[torch.as_tensor(starts)] + torch.as_tensor(later)
    wanted = np.repeat(_values(data, achieved, goals), lengths, 0)
    reward, terminated, truncated = judge.outcome(_values(data, achieved, data.rows + 1), wanted)
    if not np.isfinite(reward).all():
        raise UserError(f"{judge.name} gives rewards that are no finite numbers: {INSTEAD}")
    place = np.arange(len(data)) - np.repeat(starts, lengths)
    ends = terminated | truncated | (place == np.repeat(lengths, lengths) - 1)
    return _Copy(goals, 1 + np.minimum.reduceat(np.where(ends, place, len(data)), starts), reward, terminated)


def _room(data: Transitions, copies: int, rows: int) -> Tensor:
    """Packed rows that begin with those of the data. Raises UserError where the memory does not take them."""
    what = f"takes {{}} with dataset.hindsight={copies}"
    check_memory(data.info.id, rows, data.schema.width, what, "give fewer, or dataset.max_transitions")
    packed = data.packed.new_empty(rows, data.packed.shape[1])
    packed[: len(data.packed)] = data.packed
    return packed


def _write(data: Transitions, copy: _Copy, achieved: Entry, desired: Entry, packed: Tensor) -> None:
    """Fill packed rows with the copies of all episodes."""
    schema, lengths, own = data.schema, data.lengths.numpy(), copy.lengths
    starts = (lengths + 1).cumsum() - (lengths + 1)
    place = np.arange(len(data.packed)) - np.repeat(starts, lengths + 1)
    kept = torch.as_tensor(np.flatnonzero(place <= np.repeat(own, lengths + 1)))
    torch.index_select(data.packed, 0, kept, out=packed)
    goals = schema.view(data.packed, "obs", *achieved.path)[copy.goals]
    schema.view(packed, "obs", *desired.path)[:] = goals.repeat_interleave(torch.as_tensor(own + 1), 0)
    final = torch.as_tensor((own + 1).cumsum() - 1)
    steps = torch.ones(len(packed), dtype=torch.bool)
    steps[final] = False
    taken = place[data.rows.numpy()] < np.repeat(own, lengths)
    schema.view(packed, "reward")[steps, 0] = data.info.reward_unit.learnt(torch.as_tensor(copy.reward[taken]).float())
    schema.view(packed, "terminated")[steps, 0] = torch.as_tensor(copy.terminated[taken]).float()
    schema.view(packed, "truncated")[:] = 0
    schema.view(packed, "truncated")[final - 1] = 1 - schema.view(packed, "terminated")[final - 1]
    for name in STORED[1:]:
        schema.view(packed, name)[final] = 0
