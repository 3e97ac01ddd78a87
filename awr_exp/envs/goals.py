"""What it is worth to reach a goal, where what is observed says which goal is wanted and which one is achieved.

An environment says it by the functions of gymnasium-robotics' GoalEnv, which need no step of it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from awr_exp import shell
from awr_exp.envs import fit, make, source
from awr_exp.envs.build import MakeEnv, opened
from awr_exp.errors import FAILURES, UserError, first_line, named
from awr_exp.guard import foreign_module
from awr_exp.surroundings import kept
from awr_exp.types import DataInfo, Spec

FUNCTIONS = ("compute_reward", "compute_terminated", "compute_truncated")
"""Of an achieved goal, a desired one and what else a step is told."""
SOME = 32
"""Pairs by which it is tried whether a function takes many at once."""
INSTEAD = "leave out dataset.hindsight, or say when a goal is reached, such as dataset.goal_reward=0.5"

Outcome = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Rewards, terminations and truncations, [N] each."""


@dataclass(frozen=True)
class Judge:
    """Says what comes of goals [N, ...] that are achieved by N steps where others, [N, ...], are desired.

    name: who it is, in messages.
    """

    name: str
    outcome: Callable[[NDArray[Any], NDArray[Any]], Outcome]


@contextmanager
def judge(data: DataInfo, spec: Spec, who: str | float | None) -> Iterator[Judge]:
    """Who judges the goals of a data set of the task `spec`.

    who: None, the environment that the data name; the id of another one; or a distance, see `within`. Raises UserError
    where there is no such environment, or none that fits the data and can judge.
    """
    if isinstance(who, float | int):
        yield within(who)
        return
    # The history that is seen is nothing that an environment in no wrapper knows of.
    data = replace(data, history=1)
    with opened(_place(data, spec, who)) as env:
        bare, id = env.unwrapped, env.spec.id if env.spec else str(env)
        if who is not None:
            fit.check(env, id, True, data, spec, "choose another dataset.goal_reward")
        missing = [name for name in FUNCTIONS if not callable(getattr(bare, name, None))]
        if missing:
            raise UserError(f"environment '{id}' has no {missing[0]} to judge other goals by: {INSTEAD}")
        functions = [getattr(bare, name) for name in FUNCTIONS]

        def outcome(achieved: NDArray[Any], desired: NDArray[Any]) -> Outcome:
            reward, *flags = (_of_each(id, function, achieved, desired) for function in functions)
            terminated, truncated = (flag != 0 for flag in flags)
            return reward, terminated, truncated

        yield Judge(f"environment '{id}'", outcome)


def within(distance: float) -> Judge:
    """Every step costs 1, but for one that comes as near to the goal as this: that costs nothing and terminates."""

    def outcome(achieved: NDArray[Any], desired: NDArray[Any]) -> Outcome:
        away = (achieved.astype(np.float64) - desired).reshape(len(achieved), -1)
        there = np.linalg.norm(away, axis=1) <= distance
        return there - 1.0, there, np.zeros_like(there)

    return Judge(f"dataset.goal_reward={distance:g}", outcome)


def _place(data: DataInfo, spec: Spec, id: str | None) -> MakeEnv:
    """What makes the environment that judges."""
    if id is not None:
        return make.gym(None, None, id)
    own, why = data.env_spec, None
    if own is None:
        raise UserError(
            f"data set '{data.id}' does not say where it was collected, so that nothing says what another goal is "
            f"worth: {INSTEAD}"
        )
    if foreign_module(own.id) or source.reaches_out(own.kwargs):
        why = "would import a module or open a file"
    elif ":" not in own.id:
        try:
            gymnasium.spec(own.id)
        except gymnasium.error.Error as error:
            why = f"is not registered here ({first_line(error)})"
    if why:
        there = own.id if ":" in own.id else f"{getattr(own, 'package', None) or 'my_module'}:{own.id}"
        raise UserError(
            f"data set '{data.id}' was collected in '{own.id}', which {why}: if you trust its code, "
            f"{shell.words(shell.override('dataset.goal_reward', there))}; or {INSTEAD}"
        )
    return make.recorded(data, spec, own, INSTEAD)


def _of_each(id: str, function: Callable[..., Any], achieved: NDArray[Any], desired: NDArray[Any]) -> NDArray[Any]:
    """What a function of one pair of goals says of each of N pairs, [N]: asked once, where it takes many at once."""

    def of(row: int) -> float:
        return float(np.asarray(function(achieved[row], desired[row], {}), np.float64).item())

    with kept():
        some = np.linspace(0, len(achieved) - 1, min(SOME, len(achieved))).astype(np.int64)
        try:
            known = [of(row) for row in some]
            with suppress(*FAILURES):
                few, every = (
                    np.asarray(function(achieved[rows], desired[rows], {}), np.float64) for rows in (some, slice(None))
                )
                if few.shape == some.shape and np.allclose(few, known) and every.shape == (len(achieved),):
                    return every
            return np.array([of(row) for row in range(len(achieved))])
        except FAILURES as error:
            raise UserError(
                f"environment '{id}' cannot judge the data's goals: {function.__name__} failed ({named(error):.120}); "
                f"{INSTEAD}"
            ) from None
