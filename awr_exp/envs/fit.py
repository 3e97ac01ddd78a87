"""Whether an environment is the one that a data set's numbers mean: its spaces beside those of the data."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from awr_exp.envs.spaces import UNBOUNDED, bare, in_unknown_order, mismatch
from awr_exp.errors import UserError
from awr_exp.layout import described

if TYPE_CHECKING:
    from awr_exp.types import Spec

log = logging.getLogger(__name__)


def check(env: gymnasium.Env, id: str, clips: bool, data: Any, spec: "Spec", instead: str) -> None:
    """Compare the flat environment `id` with the data set that it is to judge.

    clips: whether it gets actions within their bounds only; data: a DataInfo; instead: what else there is to choose.
    Raises UserError where they do not fit, and warns where that may do no harm.
    """
    if problem := _sizes(env, spec) or mismatch(spec, env):
        raise UserError(f"environment '{id}' does not fit data set '{data.id}': the data have {problem}; {instead}")
    if in_unknown_order(spec, env):
        log.warning(
            "data set '%s' has observations of %s, environment '%s' flat ones: if they are in another order, its "
            "scores mean nothing",
            *(data.id, described(spec.observation), id),
        )
    if isinstance(env.action_space, spaces.Box):
        _check_actions(env.action_space, id, clips, data, spec, instead)
    _compare_observations(bare(env).observation_space, id, data)


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


def _check_actions(action: spaces.Box, id: str, clips: bool, data: Any, spec: "Spec", instead: str) -> None:
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    bounded = _finite(low) & _finite(high) & _finite(action.low) & _finite(action.high)
    said = f"data set '{data.id}' has actions {{}}, environment '{id}' {{}}"
    if other := _difference(low, high, action.low, action.high, bounded):
        raise UserError(
            f"{said.format(*other)}, so that scores would be of other actions: was it recorded through a wrapper that "
            f"scales them? {instead}, or register an environment with that wrapper as my_module:MyEnv-v0 (or correct "
            "the data set's action_space, if that is what is wrong)"
        )
    if not clips and not (_finite(low) | _finite(high)).any():
        # They were played as they were, and are.
        return
    if other := _difference(low, high, action.low, action.high, ~bounded):
        clipped = ": it gets them clipped, unless env.clip_actions=false" if clips else ""
        log.warning("%s%s", said.format(*other), clipped)


def _compare_observations(theirs: gymnasium.Space, id: str, data: Any) -> None:
    others = dict(_boxes(theirs))
    for name, box in _boxes(data.observation_space):
        other = others.get(name)
        if other is None or other.shape != box.shape:
            # One of both is flat.
            continue
        if differ := _difference(box.low, box.high, other.low, other.high, np.ones(box.shape, bool)):
            field = f"observations of '{name}'" if name else "observations"
            log.warning(
                "data set '%s' has %s %s, environment '%s' %s: if they are scaled otherwise, its scores mean nothing",
                *(data.id, field, differ[0], id, differ[1]),
            )


def _boxes(space: Any, name: str = "") -> Iterator[tuple[str, spaces.Box]]:
    """Of an observation, by the name of the entry; None has none."""
    if isinstance(space, spaces.Box):
        yield name, space
    elif isinstance(space, spaces.Dict | spaces.Tuple):
        parts: Any = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in parts:
            yield from _boxes(part, f"{name}/{key}" if name else str(key))


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
