"""Data sets of arrays that somebody else's program has made, written as Minari's."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from awr_exp.data import export
from awr_exp.data.minari import load
from awr_exp.data.own_spaces import Bound, action_space, observation_space
from awr_exp.data.steps import Episodes, Steps, check_finite, cut
from awr_exp.data.transitions import Transitions
from awr_exp.envs import fit
from awr_exp.envs.build import clips, opened
from awr_exp.envs.spaces import spec_of
from awr_exp.errors import UserError
from awr_exp.layout import structured
from awr_exp.types import DataInfo, Spec


def from_arrays(
    id: str,
    observations: ArrayLike,
    actions: ArrayLike,
    rewards: ArrayLike,
    terminations: ArrayLike | None = None,
    truncations: ArrayLike | None = None,
    *,
    episode_ends: Sequence[int] | None = None,
    next_observations: ArrayLike | None = None,
    action_low: Bound = None,
    action_high: Bound = None,
    env: Callable[[], gymnasium.Env] | None = None,
    ref_min_score: float | None = None,
    ref_max_score: float | None = None,
) -> Transitions:
    """Write N steps in order of time as the Minari data set `id`, and read it as training does.

    observations: [N, ...]; actions: [N, A] or [N], of which whole numbers by their type are choices; rewards: [N];
    terminations, truncations: [N] flags of the last steps of episodes; episode_ends: [E] the number of rows up to the
    end of each, where flags do not say it; next_observations: [N, ...] what each step led to, else see `steps.cut`;
    action_low, action_high: bounds of actions, else those of the data, rounded outward; env: makes the environment that
    the data come from; ref_min_score, ref_max_score: returns of a random and of a good policy. Raises UserError, which
    names array and row, for what cannot be learnt from, and then nothing is written.
    """
    export.check_new(id, "id")
    extras = Extras(action_low, action_high, env, ref_min_score, ref_max_score)
    given = {"observations": observations, "actions": actions, "rewards": rewards}
    optional = {"terminations": terminations, "truncations": truncations, "next_observations": next_observations}
    arrays = {name: _array(name, one) for name, one in (given | optional).items() if one is not None}
    count = len(arrays["rewards"])
    for name, array in arrays.items():
        if len(array) != count or not count:
            raise UserError(f"{name} has {len(array)} rows, rewards has {count}: each must have one for every step")
    if terminations is None and truncations is None and episode_ends is None:
        raise UserError("nothing says where episodes end: give terminations, truncations or episode_ends")
    flags = {name: _flags(name, arrays.get(name), count) for name in ("terminations", "truncations")}
    steps = Steps(
        observations=_columns(arrays["observations"]),
        actions=_columns(arrays["actions"]),
        rewards=_single("rewards", arrays["rewards"]),
        terminated=flags["terminations"],
        truncated=flags["truncations"],
        final=np.zeros(count, bool),
        begins=_begins(episode_ends, count),
        where=lambda name, row, entry: f"{name}[{row}]" if arrays[name].ndim == 1 else f"{name}[{row}, {entry}]",
        next_observations=_columns(arrays["next_observations"]) if next_observations is not None else None,
        whole=arrays["actions"].dtype.kind in "biu",
        numbered=episode_ends is not None,
    )
    _check(steps)
    store(id, steps, extras)
    return load(id)


@dataclass(frozen=True)
class Extras:
    """What there is to say of steps beside their numbers, see `from_arrays`."""

    action_low: Bound = None
    action_high: Bound = None
    env: Callable[[], gymnasium.Env] | None = None
    ref_min_score: float | None = None
    ref_max_score: float | None = None
    texts: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raises UserError for reference scores that tell nothing apart."""
        low, high = self.ref_min_score, self.ref_max_score
        if (low is None) != (high is None) or not (low is None or high is None or -math.inf < low < high < math.inf):
            raise UserError(
                f"ref_min_score is {low} and ref_max_score {high}: give both, and the return of an expert as the larger"
            )


@dataclass(frozen=True)
class Stored:
    """A data set that has been written: its task, its returns and lengths [E], and what was done to make episodes."""

    spec: Spec
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: int
    said: tuple[str, ...]


def store(
    id: str,
    steps: Steps,
    extras: Extras,
    advance: Callable[[int], None] = lambda done: None,
    beside: Path | None = None,
) -> Stored:
    """Write steps, whose numbers are finite, as data set `id`; it appears whole or not at all.

    advance: is told how many rows are written; beside: see `export.publish`. Raises UserError where the steps make no
    data set, do not fit the environment, or cannot be written.
    """
    episodes = cut(steps)
    if extras.env is None:
        own, env_spec = _spaces(steps, extras, None), None
    else:
        with opened(extras.env) as env:
            export.check_env(env)
            own, env_spec = _spaces(steps, extras, env), env.spec
            _check_fit(id, env, extras.env, own)
    spec = spec_of(f"data set '{id}'", *own)
    returns: list[float] = []
    buffers = _buffers(steps, episodes, spec, returns, advance, export.make_place(id).parent)
    scores = {"ref_min_score": extras.ref_min_score, "ref_max_score": extras.ref_max_score}
    if not export.publish(id, own, env_spec, buffers, scores | (extras.texts or {}), beside):
        raise UserError(f"another {id} is there by now: choose another id, or delete that one")
    lengths = episodes.stop - episodes.first
    return Stored(spec, np.array(returns), lengths, int(episodes.terminated.sum()), episodes.said)


def _spaces(steps: Steps, extras: Extras, env: gymnasium.Env | None) -> tuple[Any, Any]:
    return observation_space(steps, env), action_space(steps, extras.action_low, extras.action_high, env)


def _check_fit(id: str, env: gymnasium.Env, make: Callable[[], gymnasium.Env], own: tuple[Any, Any]) -> None:
    """Raises UserError, as training would, if the data are not of the environment."""
    info = DataInfo(id, np.zeros(1), id, observation_space=own[0])
    name = env.spec.id if env.spec else str(env)
    fit.check(env, name, clips(make), info, spec_of(f"data set '{id}'", *own), "choose another env, or leave it out")


def _buffers(
    steps: Steps, episodes: Episodes, spec: Spec, returns: list[float], advance: Callable[[int], None], place: Path
) -> Iterator[Any]:
    """Minari's EpisodeBuffer of each episode, whose return is added to `returns`."""
    from minari.data_collector import EpisodeBuffer

    for number, (first, stop) in enumerate(zip(episodes.first.tolist(), episodes.stop.tolist(), strict=True)):
        observations, actions = episodes.observations(steps, number), steps.actions[first:stop]
        rewards, ends = steps.rewards[first:stop].astype(np.float64), np.arange(first + 1, stop + 1) == stop
        export.check_room(place, 4 * (observations.nbytes + actions.nbytes + rewards.nbytes))
        yield EpisodeBuffer(
            observations=observations,
            actions=_given(actions, spec),
            rewards=rewards,
            terminations=ends & episodes.terminated[number],
            truncations=ends & ~episodes.terminated[number],
            infos={},
        )
        returns.append(float(rewards.sum()))
        advance(stop)


def _given(actions: NDArray[Any], spec: Spec) -> Any:
    """Actions [T, n] as the environment gets them, of which the choices are in its own numbers."""
    if spec.action_shape == ():
        return actions[:, 0].astype(np.int64)
    return structured(spec.action, np.asarray(actions))


def kept(dtypes: Sequence[np.dtype[Any]]) -> type[np.number[Any]]:
    """The type that numbers of these are kept in: bytes and float32 as they are, all others as float64."""
    if all(dtype == np.uint8 for dtype in dtypes):
        return np.uint8
    return np.float32 if all(dtype in (np.float16, np.float32) for dtype in dtypes) else np.float64


def _array(name: str, given: ArrayLike) -> NDArray[Any]:
    try:
        array = np.asarray(given)
    except ValueError:
        raise UserError(f"{name} has rows of several lengths: give an array") from None
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise UserError(f"{name} holds {array.dtype}, which are no numbers, or is no array: give an array of numbers")
    return array


def _columns(array: NDArray[Any]) -> NDArray[Any]:
    """An array with a row a step, in a type that is kept."""
    return (array[:, None] if array.ndim == 1 else array).astype(kept([array.dtype]), copy=False)


def _single(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    if array.size != len(array):
        raise UserError(f"{name} has the shape {array.shape}: give one number for every step")
    return array.reshape(len(array)).astype(np.float64)


def _flags(name: str, array: NDArray[Any] | None, count: int) -> NDArray[np.bool_]:
    if array is None:
        return np.zeros(count, bool)
    flat = _single(name, array)
    if not np.isin(flat, (0, 1)).all():
        row = int((~np.isin(flat, (0, 1))).argmax())
        raise UserError(f"{name}[{row}] is {flat[row]:g}; a flag is true or false")
    return flat == 1


def _begins(ends: Sequence[int] | None, count: int) -> NDArray[np.bool_]:
    begins = np.zeros(count, bool)
    begins[0] = True
    if ends is not None:
        rows = np.asarray(ends)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or (np.diff(rows, prepend=0) <= 0).any() or rows[-1] != count:
            raise UserError(f"episode_ends must be whole numbers that rise to {count}, the number of steps")
        begins[rows[:-1]] = True
    return begins


def _check(steps: Steps) -> None:
    """Raises UserError for a number that is not finite."""
    known = {"observations": steps.observations, "actions": steps.actions, "rewards": steps.rewards}
    if steps.next_observations is not None:
        known["next_observations"] = steps.next_observations
    for name, array in known.items():
        check_finite(array, lambda row, entry, name=name: steps.where(name, row, entry))  # type: ignore[misc]
    if steps.actions.ndim != 2:
        raise UserError(f"actions has the shape {steps.actions.shape}: give [steps] or [steps, entries]")
    if steps.next_observations is not None and steps.next_observations.shape != steps.observations.shape:
        raise UserError(
            f"next_observations has the shape {steps.next_observations.shape}, observations {steps.observations.shape}"
        )
