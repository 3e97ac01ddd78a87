"""Whether an environment is the one that a data set's numbers mean: its spaces beside those of the data."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from awr_exp.errors import UserError

if TYPE_CHECKING:
    from awr_exp.types import Spec

log = logging.getLogger(__name__)

UNBOUNDED = 1e30
"""Bounds from here on mean nothing: gymnasium's environments write the largest float32 where others write infinity."""


def check(env: gymnasium.Env, id: str, clips: bool, data: Any, spec: "Spec", instead: str) -> None:
    """Compares the flat environment `id` with the data set that it is to judge, and warns of what may be harmless.

    env: with actions that count from 0; clips: whether it gets actions within its bounds only; data: a DataInfo;
    instead: what else there is to choose. Raises UserError where they do not fit.
    """
    inner = _unflattened(env)
    problem = _sizes(env, spec) or _entries(data.observation_space, inner.observation_space)
    if problem:
        raise UserError(f"environment '{id}' does not fit data set '{data.id}': the data have {problem}; {instead}")
    action, low, high = env.action_space, np.array(spec.action_low), np.array(spec.action_high)
    if isinstance(action, spaces.Box):
        said = f"data set '{data.id}' has actions {{}}, environment '{id}' {{}}"
        endless = ~(_finite(low) & _finite(high)) | ~(_finite(action.low) & _finite(action.high))
        if wrong := _difference(low, high, action.low, action.high, ~endless):
            raise UserError(
                f"{said.format(*wrong)}, so that scores would be of other actions: it may have been recorded through a "
                f"wrapper that scales them; {instead}, or register an environment with that wrapper as "
                "my_module:MyEnv-v0 (or correct the data set's action_space, if that is what is wrong)"
            )
        as_played = not clips and not (_finite(low) | _finite(high)).any()
        if not as_played and (wrong := _difference(low, high, action.low, action.high, endless)):
            hint = "" if clips is False else " (which clips what is beyond, unless env.clip_actions=false)"
            log.warning("%s%s", said.format(*wrong), hint)
    own, theirs = data.action_space, inner.action_space
    counted = [one.name for one in getattr(data.env_spec, "additional_wrappers", ())]
    if isinstance(own, spaces.Discrete) and isinstance(theirs, spaces.Discrete) and "FromZero" not in counted:
        _warn_of_starts(data.id, "actions", own, id, theirs)
    _compare_observations(env, inner, id, data)


def _sizes(env: gymnasium.Env, spec: "Spec") -> str | None:
    obs, action = env.observation_space.shape, env.action_space
    if obs != (spec.obs_dim,):
        return f"{spec.obs_dim} observation entries, the environment {obs[0] if obs else 0}"
    if spec.discrete != isinstance(action, spaces.Discrete):
        kind = {True: "discrete", False: "continuous"}
        return f"{kind[spec.discrete]} actions, the environment {kind[not spec.discrete]} ones"
    if isinstance(action, spaces.Discrete) and action.n != spec.num_actions:
        return f"{spec.num_actions} actions, the environment {action.n}"
    if not spec.discrete and action.shape != (spec.action_dim,):
        return f"{spec.action_dim} action entries, the environment {action.shape[0] if action.shape else 0}"
    return None


def _entries(own: Any, theirs: gymnasium.Space) -> str | None:
    """What is wrong with the parts of an observation that has several, named ones or in order."""
    if not isinstance(own, spaces.Dict | spaces.Tuple) or type(own) is not type(theirs):
        return None
    mine, others = dict(_parts(own)), dict(_parts(theirs))
    if mine.keys() != others.keys():
        return f"observations of {', '.join(sorted(mine))}, the environment of {', '.join(sorted(others))}"
    for name, part in mine.items():
        sizes = spaces.flatdim(part), spaces.flatdim(others[name])
        if sizes[0] != sizes[1]:
            return f"{sizes[0]} numbers of '{name}' in an observation, the environment {sizes[1]}"
    return None


def _compare_observations(env: gymnasium.Env, inner: gymnasium.Env, id: str, data: Any) -> None:
    own, theirs = data.observation_space, inner.observation_space
    if own is None:
        return
    if type(own) is not type(theirs) or (isinstance(own, spaces.Box) and own.shape != theirs.shape):
        own, theirs = spaces.flatten_space(own), env.observation_space
    others = dict(_parts(theirs))
    for name, part in _parts(own):
        other, field = others[name], f"observations of '{name}'" if name else "observations"
        if isinstance(part, spaces.Box) and isinstance(other, spaces.Box) and part.shape == other.shape:
            wrong = _difference(part.low, part.high, other.low, other.high, np.ones(part.shape, bool))
            if wrong:
                log.warning(
                    "data set '%s' has %s %s, environment '%s' %s: if they are scaled otherwise, scores mean nothing",
                    *(data.id, field, wrong[0], id, wrong[1]),
                )
        elif isinstance(part, spaces.Discrete) and isinstance(other, spaces.Discrete):
            _warn_of_starts(data.id, field, part, id, other)


def _warn_of_starts(data: str, field: str, own: spaces.Discrete, id: str, theirs: spaces.Discrete) -> None:
    if own.start != theirs.start:
        log.warning(
            "data set '%s' counts its %s from %d, environment '%s' from %d: the first of both is taken for the same",
            *(data, field, own.start, id, theirs.start),
        )


def _parts(space: gymnasium.Space, name: str = "") -> Iterator[tuple[str, Any]]:
    """What a space consists of, by name."""
    inner: Any = space.spaces if isinstance(space, spaces.Dict | spaces.Tuple) else None
    if inner is None:
        yield name, space
        return
    for key, part in inner.items() if isinstance(space, spaces.Dict) else enumerate(inner):
        yield from _parts(part, f"{name}/{key}" if name else str(key))


def _unflattened(env: gymnasium.Env) -> gymnasium.Env:
    """Without the wrappers that make it flat and count from 0."""
    while isinstance(env, gymnasium.wrappers.FlattenObservation) or type(env).__name__ == "FromZero":
        env = env.env  # type: ignore[attr-defined]
    return env


def _finite(bound: ArrayLike) -> NDArray[np.bool_]:
    return np.abs(np.asarray(bound, np.float64)) < UNBOUNDED


def _difference(
    low: ArrayLike, high: ArrayLike, other_low: ArrayLike, other_high: ArrayLike, among: NDArray[np.bool_]
) -> tuple[str, str] | None:
    """Both bounds of the first of these entries in which they differ by more than rounding, in words."""
    bounds = [np.asarray(bound, np.float64).ravel() for bound in (low, high, other_low, other_high)]
    bounds = [np.where(_finite(bound), bound, np.copysign(np.inf, bound)) for bound in bounds]
    differ = ~(np.isclose(bounds[0], bounds[2], 1e-3) & np.isclose(bounds[1], bounds[3], 1e-3)) & among.ravel()
    if not differ.any():
        return None
    entry = int(differ.argmax())
    where = f" in entry {entry}" if len(differ) > 1 else ""
    first, second = (f"from {bounds[n][entry]:g} to {bounds[n + 1][entry]:g}" for n in (0, 2))
    return f"{first}{where}", second
