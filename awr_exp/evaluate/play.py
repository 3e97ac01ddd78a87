"""Episodes of all that is evaluated: policies of one shape in one environment are the members of one model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from awr_exp.envs.build import drawing
from awr_exp.errors import UserError
from awr_exp.evaluate.entries import Entry
from awr_exp.evaluate.together import Together
from awr_exp.reading import check_links
from awr_exp.seeding import generator
from awr_exp.training.evaluate import Evaluator
from awr_exp.training.progress import Bar
from awr_exp.training.video import film

MOST = 32
"""Policies that play together at most: each has environments of its own."""


class Played:
    """The episodes of one policy: returns and lengths [E], and how often its environment failed meanwhile.

    error: why it was given up, if it was.
    """

    def __init__(self, episodes: int) -> None:
        self.returns = np.full(episodes, np.nan)
        self.lengths: NDArray[np.int64] = np.zeros(episodes, np.int64)
        self.failures = 0
        self.error: str | None = None


def groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries that play together."""
    ordered = sorted(entries, key=lambda one: one.key)
    alike = [list(group) for _, group in groupby(ordered, lambda one: one.key)]
    return [group[begin : begin + MOST] for group in alike for begin in range(0, len(group), MOST)]


def together(group: Sequence[Entry], sample: bool, first: int) -> Together:
    """The policies of a group, which draw what they would have drawn in an evaluation of training."""
    names = [("sample", "evaluation", one.facts["step"], first) if sample else
             ("best_of", "evaluation", one.facts["step"]) for one in group]  # fmt: skip
    generators = [generator(one.seed, *name) for one, name in zip(group, names, strict=True)]
    return Together([one.policy for one in group], generators, sample)


def every(groups: Sequence[Sequence[Entry]], episodes: int, first: int, sample: bool) -> dict[Path, Played]:
    """The episodes of all groups, by path, the first of each policy from the seed `first`."""
    played: dict[Path, Played] = {}
    with Bar("evaluating", episodes * sum(map(len, groups))) as bar:
        for group in groups:
            before = episodes * len(played)
            found = _play(group, episodes, first, sample, lambda done: bar.advance(before + done))  # noqa: B023
            played |= {one.path: own for one, own in zip(group, found, strict=True)}
    return played


def _play(
    group: Sequence[Entry], episodes: int, first: int, sample: bool, advance: Callable[[int], object]
) -> list[Played]:
    """The episodes of a group; advance: is told how many are done."""
    at_once, found = group[0].at_once, [Played(episodes) for _ in group]
    policies = together(group, sample, first)
    with closing(Evaluator(group[0].make_env, len(group), at_once, torch.get_num_threads())) as evaluator:
        for begin in range(0, episodes, at_once):
            count = min(at_once, episodes - begin)
            own = slice(begin, begin + count)
            played = evaluator.play(policies, [one.error is None for one in found], count, first + begin)
            for member, one in enumerate(found):
                one.returns[own], one.lengths[own] = played.returns[member, :count], played.lengths[member, :count]
                one.failures += len(played.failures[member])
                one.error = one.error or played.given_up.get(member)
            advance((begin + count) * len(group))
    return found


def films(
    groups: Sequence[Sequence[Entry]], played: Mapping[Path, Played], content: Mapping[str, Any]
) -> Iterator[tuple[Path, float | UserError]]:
    """Film the first episode of each policy as it was played; where, and its return, or what went wrong."""
    sample, first = content["sample"], content["seed"]
    for group in groups:
        make_env, shape = drawing(group[0].make_env), (len(group), group[0].at_once)
        for member, one in enumerate(group):
            try:
                if one.path.is_dir():
                    check_links(one.path)
                with Bar("filming", int(played[one.path].lengths[0])) as bar:
                    # Anew for each, so that it draws what it drew before.
                    policies = together(group, sample, first)
                    gained = film(make_env, policies, shape, member, one.film, first, told=bar.advance)
                yield one.film, gained
            except UserError as error:
                yield one.film, error
