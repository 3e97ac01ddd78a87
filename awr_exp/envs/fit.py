"""Whether an environment is the one that a data set's or a policy's numbers mean: its spaces beside theirs."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from awr_exp.envs.spaces import UNBOUNDED, canonical, parts_of, spec_of
from awr_exp.errors import UserError
from awr_exp.layout import described
from awr_exp.types import DataInfo, Spec

log = logging.getLogger(__name__)


def check(env: gymnasium.Env, id: str, clips: bool, data: DataInfo, spec: Spec, instead: str) -> None:
    """Compare the environment `id` with the data set that it is to judge.

    clips: whether it gets actions within their bounds only; instead: what else there is to choose. Chunks are played
    step by step, so that it is about single steps. Raises UserError where they do not fit, and warns where that may do
    no harm.
    """
    spec = spec.unchunked
    own = spec_of(f"environment '{id}'", env.observation_space, env.action_space)
    if problem := _mismatch(spec, own) or _order_mismatch(spec, own, env):
        raise UserError(f"environment '{id}' does not fit data set '{data.id}': the data have {problem}; {instead}")
    if len(spec.observation) > 1 and not own.observation and _structure(env) is None:
        log.warning(
            "data set '%s' has observations of %s, environment '%s' flat ones: if they are in another order, its "
            "scores mean nothing",
            *(data.id, described(spec.observation), id),
        )
    if not spec.discrete:
        _check_actions(own, id, clips, data, spec, instead)
    _compare_observations(env.observation_space, id, data)


def check_policy(env: gymnasium.Env, owner: str, spec: Spec) -> None:
    """Compare an environment with the task `spec` that the policy of `owner`, such as a run, was trained for.

    Raises UserError that says how they differ. Of bounds that are infinite on one side, it depends on how it is played.
    """
    spec = spec.unchunked
    id = env.spec.id if env.spec else str(env)
    own = spec_of(f"environment '{id}'", env.observation_space, env.action_space)
    problem = _mismatch(spec, own) or _order_mismatch(spec, own, env)
    if not problem and not spec.discrete:
        bounds = _bounds(spec, own)
        if other := _difference(bounds, np.isfinite(bounds).all(0)):
            problem = "actions {}, the environment {}".format(*other)
    if problem:
        raise UserError(f"environment '{id}' does not fit the policy of {owner}, which has {problem}: choose another")


def _mismatch(data: Spec, env: Spec) -> str | None:
    """What sets the two tasks apart, if anything does: a text that goes on after "the data have"."""
    kinds = ["discrete" if spec.discrete else "continuous" for spec in (data, env)]
    parts = (data.observation, env.observation) if data.observation and env.observation else ((), ())
    alike = data.action_shape == env.action_shape == ()
    for said, ours, theirs in (
        ("{} observation entries, the environment {}", data.obs_dim, env.obs_dim),
        ("{} actions, the environment {} ones", *kinds),
        *([("{} actions, the environment {}", data.num_actions, env.num_actions)] if alike else ()),
        ("actions of {}, the environment of {}", *map(_form, (data, env))),
        ("{} action entries, the environment {}", data.action_dim, env.action_dim),
        ("actions that begin at {}, the environment ones that begin at {}", *map(_starts, (data, env))),
        ("observations of {}, the environment of {}", *parts),
    ):
        if ours != theirs:
            return said.format(*(described(one) if isinstance(one, tuple) else one for one in (ours, theirs)))
    return None


def _form(spec: Spec) -> str:
    """The parts of an action in words."""
    if spec.action_shape == ():
        return "one choice"
    return spec.action_parts if spec.action else "a vector"


def _starts(spec: Spec) -> str:
    return ", ".join(map(str, np.ravel(spec.starts).tolist()))


def _order_mismatch(data: Spec, own: Spec, env: gymnasium.Env) -> str | None:
    """The same of observations of which one side is flat, and may be in the order of gymnasium, which is not ours."""
    structure = _structure(env)
    if bool(data.observation) == bool(own.observation) or _order(structure) == _order(canonical(structure)):
        return None
    ours, theirs = ("observations in parts", "flat ones") if data.observation else ("flat observations", "a Dict")
    order = "keys in another order than the alphabet's, so that nobody knows which column is which"
    return f"{ours}, the environment {theirs} of {order}"


def _structure(env: gymnasium.Env) -> gymnasium.Space | None:
    """The Dict or Tuple that the observations of an environment are made of, where there is one."""
    while not isinstance(env.observation_space, spaces.Dict | spaces.Tuple):
        if not isinstance(env, gymnasium.Wrapper):
            return None
        env = env.env
    return env.observation_space


def _order(space: Any) -> list[Any]:
    """The keys of all Dicts in a space, in their order."""
    return [(key, _order(part)) for key, part in parts_of(space)]


def _check_actions(own: Spec, id: str, clips: bool, data: DataInfo, spec: Spec, instead: str) -> None:
    """Compare the bounds of actions, which may be infinite; see `check`."""
    bounds = _bounds(spec, own)
    bounded = np.isfinite(bounds).all(0)
    said = f"data set '{data.id}' has actions {{}}, environment '{id}' {{}}"
    if other := _difference(bounds, bounded):
        raise UserError(
            f"{said.format(*other)}, so that scores would be of other actions: was it recorded through a wrapper that "
            f"scales them? {instead}, or register an environment with that wrapper as my_module:MyEnv-v0 (or correct "
            "the data set's action_space, if that is what is wrong)"
        )
    if not clips and not np.isfinite(bounds[:2]).any():
        # They were played as they were, and are.
        return
    if other := _difference(bounds, ~bounded):
        clipped = ": it gets them clipped, unless env.clip_actions=false" if clips else ""
        log.warning("%s%s", said.format(*other), clipped)


def _bounds(*specs: Spec) -> list[NDArray[np.float64]]:
    """The least and the most of each action entry, of one task after the other."""
    return [np.array(bound) for one in specs for bound in (one.action_low, one.action_high)]


def _compare_observations(theirs: gymnasium.Space, id: str, data: DataInfo) -> None:
    """Warn where observations of the same form have other bounds."""
    others = dict(_boxes(theirs))
    for name, box in _boxes(data.observation_space):
        other = others.get(name)
        if other is None or other.shape != box.shape:
            # One of both is flat.
            continue
        if differ := _difference([box.low, box.high, other.low, other.high]):
            field = f"observations of '{name}'" if name else "observations"
            log.warning(
                "data set '%s' has %s %s, environment '%s' %s: if they are scaled otherwise, its scores mean nothing",
                *(data.id, field, differ[0], id, differ[1]),
            )


def _boxes(space: Any, name: str = "") -> Iterator[tuple[str, spaces.Box]]:
    """The boxes that an observation is made of, each with the name of its entry; there are none in None."""
    if isinstance(space, spaces.Box):
        yield name, space
    for key, part in parts_of(space):
        yield from _boxes(part, f"{name}/{key}" if name else str(key))


def _difference(bounds: Sequence[ArrayLike], among: ArrayLike = True) -> tuple[str, str] | None:
    """Both bounds of the first of these entries in which they differ by more than rounding, in words.

    bounds: the least and the most of the one side, and then of the other.
    """
    exact = np.array(bounds, np.float64).reshape(2, 2, -1)
    exact = np.where(np.abs(exact) < UNBOUNDED, exact, np.copysign(np.inf, exact))
    differ = ~np.isclose(exact[0], exact[1], 1e-3).all(0) & among
    if not differ.any():
        return None
    entry = int(differ.argmax())
    first, second = (f"from {low:g} to {high:g}" for low, high in exact[..., entry])
    return f"{first} in entry {entry}" if len(differ) > 1 else first, second
