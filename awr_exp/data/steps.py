"""Steps in order of time, as logs have them, and where the episodes in them begin and end."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.errors import UserError

PIECE = 65_536
"""Rows that are looked at in one piece, for they may lie on a disk."""

Where = Callable[[str, int, int], str]
"""Names the place of a number: its column (such as "actions"), row and entry."""


@dataclass(frozen=True)
class Steps:
    """N rows in order of time, each with an observation, the action that was done in it, and the reward that it earned.

    observations: [N, ...]; actions: [N, A]; rewards: [N]; terminated, truncated: [N] bool, an episode ends after this
    step, by the task or otherwise; final: [N] bool, the row is an episode's final observation, and has no action;
    begins: [N] bool, another episode begins here, whatever flags say; next_observations: [N, ...] what each step led
    to, if that is known; whole: whether actions are whole numbers by their type; numbered: whether `begins` is set
    wherever an episode begins, so that an episode may go on after a flag.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[Any]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    final: NDArray[np.bool_]
    begins: NDArray[np.bool_]
    where: Where
    next_observations: NDArray[Any] | None = None
    whole: bool = False
    numbered: bool = False

    def pieces(self) -> Iterator[slice]:
        """All rows in order, piece by piece."""
        return (slice(start, start + PIECE) for start in range(0, len(self.rewards), PIECE))


@dataclass(frozen=True)
class Episodes:
    """The E episodes of steps: their first rows, the rows after their last steps, and whether they terminated, [E].

    closing: [E] the row whose observation is the final one, or, where `successor` is set, whose next observation is.
    said: what was done to make them, in whole sentences.
    """

    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    closing: NDArray[np.int64]
    successor: NDArray[np.bool_]
    said: tuple[str, ...]

    def observations(self, steps: Steps, number: int) -> NDArray[Any]:
        """The T + 1 observations of an episode."""
        row, known = int(self.closing[number]), steps.next_observations
        last = known[row] if known is not None and self.successor[number] else steps.observations[row]
        return np.concatenate([steps.observations[self.first[number] : self.stop[number]], last[None]])


def cut(steps: Steps) -> Episodes:
    """The episodes of steps. No observation, action or reward is made up.

    Where an episode's final observation is not in the data: if it was cut, its last row gives up its step and is the
    final observation; if it terminated, nothing depends on it, and the last observation stands in for it. Raises
    UserError where there is no episode.
    """
    following = np.append(steps.begins[1:], True)
    known = steps.next_observations is not None
    gaps = _gaps(steps, following) if known else np.zeros(len(steps.rewards), bool)
    # A final observation belongs to the episode whose step led to it.
    led = np.append(steps.final[1:], False) & ~following
    ends = ((steps.terminated | steps.truncated) & ~led) | steps.final | following | gaps
    last = np.flatnonzero(ends)
    first = np.append(0, last[:-1] + 1)
    shown = steps.final[last]
    over = steps.terminated[last] | (shown & (last > first) & steps.terminated[last - 1])
    given_up = ~shown & ~over & (not known)
    stop = last + 1 - (shown | given_up)
    after = _after_the_end(steps, first, over)
    kept = (stop > first) & ~after
    rows, one = last + 1 - first, np.ones_like(first)
    cases = [
        (after, rows, "row", "came after the end of their episode: left out"),
        (~after & (stop <= first), one, "episode", "had a single row, which shows no step: left out"),
        (kept & given_up, one, "episode", "ended by a cut, with no observation after it: the last row gave "
         "that instead of a step"),
        (kept & over & ~shown & (not known), one, "episode", "terminated without a final observation, on which "
         "nothing depends: the last one stands in for it"),
    ]  # fmt: skip
    said = [_sentence(int(count[chosen].sum()), noun, text) for chosen, count, noun, text in cases]
    said.append(_sentence(int(gaps.sum()), "step", "led to another observation than the next row's: cut there"))
    if not kept.any():
        raise UserError("no episode has a step with what followed it: at least two rows of one are needed")
    successor = ~shown & known
    return Episodes(first[kept], stop[kept], over[kept], last[kept], successor[kept], tuple(filter(None, said)))


def _sentence(count: int, noun: str, text: str) -> str:
    """What is said of so many of a noun; nothing of none."""
    return f"{count:,} {noun}{'s' if count > 1 else ''} {text}" if count else ""


def _after_the_end(steps: Steps, first: NDArray[np.int64], over: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each piece of rows comes after another one of its episode that terminated, as after a success."""
    if not steps.numbered:
        return np.zeros_like(over)
    before: NDArray[np.int64] = np.cumsum(over) - over
    heads = np.flatnonzero(steps.begins[first] | (first == 0))
    own = np.searchsorted(heads, np.arange(len(first)), "right") - 1
    later: NDArray[np.bool_] = before > before[heads[own]]
    return later


def _gaps(steps: Steps, following: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether what each step led to is another observation than that of the next row of its episode."""
    assert steps.next_observations is not None
    gaps = np.zeros(len(following), bool)
    inner = ~(following | steps.terminated | steps.truncated | steps.final)
    for piece in steps.pieces():
        after = slice(piece.start + 1, piece.stop + 1)
        there = steps.observations[after]
        here = steps.next_observations[piece][: len(there)]
        same = np.isclose(here, there, 1e-4, 1e-6).reshape(len(there), -1).all(1)
        gaps[piece][: len(there)] = ~same
    gaps &= inner
    if gaps.sum() > inner.sum() / 2:
        raise UserError(
            f"what a step led to is not the observation of the next row in {gaps.sum():,} of {inner.sum():,} rows: put "
            "the rows into their order of time, or leave out the next observations if they have noise of their own"
        )
    return gaps


def check_finite(values: NDArray[Any], where: Callable[[int, int], str], good: NDArray[np.bool_] | None = None) -> None:
    """Raises UserError, which names row and entry, for a number [n, ...] that float32 does not have.

    good: [n] rows whose numbers mean nothing.
    """
    if values.dtype.kind != "f" or not values.size:
        return
    with np.errstate(over="ignore"):
        fine = np.isfinite(values.reshape(len(values), -1).astype(np.float32, copy=False))
    if good is not None:
        fine |= good[:, None]
    if not fine.all():
        row, entry = (int(each) for each in np.argwhere(~fine)[0])
        value = values.reshape(len(values), -1)[row, entry]
        said = "is empty, or no number" if np.isnan(value) else f"holds {value:g}, which is too large"
        raise UserError(f"{where(row, entry)} {said}: repair it, or leave out its episode")
