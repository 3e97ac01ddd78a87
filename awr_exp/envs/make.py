"""The group env: which environment a run is evaluated in, and which one it collects in."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import WrapperSpec

from awr_exp import shell
from awr_exp.envs import fit, source
from awr_exp.envs.build import Make, MakeEnv, opened, task
from awr_exp.envs.spaces import spec_of
from awr_exp.errors import FAILURES, UserError, first_line
from awr_exp.guard import foreign_module
from awr_exp.ranges import Options, Text, Wrappers, checked
from awr_exp.types import DataInfo, Spec

log = logging.getLogger(__name__)

OTHERS = "choose env=gym env.id=... or env=none"
"""What there is beside the environment that a data set names."""


@checked("env")
def gym(
    data: DataInfo | None,
    spec: Spec | None,
    id: Text,
    kwargs: Options | None = None,
    vectorized: bool = False,
    clip_actions: bool = True,
    wrappers: Wrappers = (),
) -> MakeEnv:
    """The registered environment `id` in gymnasium's `wrappers`, the innermost first.

    Raises UserError if it cannot be made or does not fit the data set, if any.
    """
    specs = (*map(source.asked, wrappers), *_stack(data))
    if vectorized and specs:
        raise UserError("env.wrappers are put on environments one by one: leave out env.vectorized")
    make = Make(id, dict(kwargs or {}) | _drawing(specs), vectorized, clip_actions, specs)
    named = data and (data.eval_env_spec or data.env_spec)
    _check(make, data, spec, f"choose {'env=from_dataset' if named else 'another env.id'} or env=none")
    if data and named and (place := _placed(make)) != (theirs := _placed(of_spec(named, clip_actions))):
        log.info(
            "evaluating in %s, though data set '%s' is of %s: returns in the two do not compare",
            *(source.described(place), data.id, source.described(theirs)),
        )
    if vectorized:
        _check_vectorized(make)
    return make


def from_dataset(data: DataInfo | None, spec: Spec | None) -> MakeEnv:
    """The environment that the data set is to be evaluated in, which knows the one that runs collect in.

    It is found by its registered id: no code path of the metadata is followed.
    """
    if data is None:
        raise UserError("env=from_dataset needs a data set: choose an environment such as env=pendulum")
    own, judge = data.env_spec, data.eval_env_spec
    if own is None and judge is None:
        raise UserError(
            f"data set '{data.id}' does not say where it was collected: choose env=gym env.id=... or env=none"
        )
    make = recorded(data, spec, judge or own)
    if own is None or judge is None or judge == own:
        return make
    log.info(
        "evaluating in the evaluation environment of data set '%s', its eval_env_spec: %s; it was collected in its "
        "env_spec: %s, and what a run collects is, too",
        *(data.id, source.described(judge), source.described(own)),
    )
    return replace(make, collects=partial(recorded, data, spec, own))


def recorded(data: DataInfo, spec: Spec | None, env: Any, instead: str = OTHERS) -> Make:
    """What makes the environment `env` that a data set names, once it is found to be safe, there and fitting.

    instead: what else there is to choose. Raises UserError where it is not.
    """
    # Actions without bounds were played as they were, and so the rewards are of those.
    clip = spec is None or spec.discrete or bool(np.isfinite([*spec.action_low, *spec.action_high]).any())
    make = of_spec(env, clip)
    if foreign_module(env.id) or source.reaches_out(env.kwargs):
        raise UserError(
            f"data set '{data.id}' was collected in '{env.id}', which would import a module or open a file: if you "
            f"trust it, {shell.words(*overrides(make))}"
        )
    make = replace(make, wrappers=(*make.wrappers, *_stack(data)))
    limit = _registered_limit(data, env, clip)
    if env.max_episode_steps == -1 and limit:
        log.info("data set '%s' knows no limit of %d steps in %s: nor does its evaluation", data.id, limit, env.id)
    if any(map(source.recreated, make.wrappers)):
        log.info("environment of data set '%s', with what it was recorded through: %s", data.id, source.described(env))
    _check(make, data, spec, instead)
    if learnt := [name for name in map(source.recreated, make.wrappers) if name in source.LEARNING]:
        log.warning(
            "data set '%s' was recorded through %s, whose statistics it does not hold: they begin anew, and scores are "
            "of other numbers until they have settled",
            *(data.id, " and ".join(learnt)),
        )
    return make


def _registered_limit(data: DataInfo, env: Any, clip: bool) -> int | None:
    """The time limit, in steps, that an environment is registered with, if any.

    Raises UserError, which says where its code may be, if nothing of that name is registered.
    """
    if ":" in env.id:
        return None
    try:
        return gymnasium.spec(env.id).max_episode_steps
    except gymnasium.error.Error as error:
        package, own = getattr(env, "package", None), ""
        if package:
            there = replace(of_spec(env, clip), id=f"{package}:{env.id}")
            own = f"{shell.words(*overrides(there))} if you trust that package, or "
        raise UserError(
            f"data set '{data.id}' was collected in '{env.id}', which is not registered here ({first_line(error)}): "
            f"choose {own}env=gym env.id=... or env=none"
        ) from None


def of_spec(env: Any, clip_actions: bool) -> Make:
    """What makes the environment that an EnvSource, or gymnasium's EnvSpec, describes."""
    kwargs, wrappers = dict(env.kwargs), tuple(env.additional_wrappers)
    if env.max_episode_steps is not None:
        kwargs["max_episode_steps"] = env.max_episode_steps
    return Make(env.id, kwargs | _drawing(wrappers), False, clip_actions, wrappers)


def _stack(data: DataInfo | None) -> list[WrapperSpec]:
    """What shows an environment's last observations at once, where those of the data set are."""
    return list(map(source.asked, source.stack(data.history if data else 1)))


def _drawing(wrappers: Sequence[WrapperSpec]) -> dict[str, str]:
    """What an environment is made with so that pictures that are observed are drawn, but not shown."""
    return {"render_mode": "rgb_array"} if "AddRenderObservation" in map(source.recreated, wrappers) else {}


def _placed(make: Make) -> source.EnvSource:
    """The environment with all that it is made with, but for wrappers and pictures."""
    id, kwargs = make.id.rpartition(":")[2], dict(make.kwargs)
    with suppress(gymnasium.error.Error):
        registered = gymnasium.spec(id)
        kwargs = {**registered.kwargs, "max_episode_steps": registered.max_episode_steps, **kwargs}
    kwargs.pop("render_mode", None)
    return source.EnvSource(id, kwargs, kwargs.pop("max_episode_steps", None) or -1)


def overrides(make: Make) -> list[str]:
    """The overrides that choose the environment of `make`, in those of its wrappers that can be made again."""
    kwargs = [shell.override(f"+env.kwargs.{name}", value) for name, value in make.kwargs.items()]
    wrappers = [{name: dict(one.kwargs or {})} for one in make.wrappers if (name := source.recreated(one))]
    seen_in = [shell.override("env.wrappers", wrappers)] if wrappers else []
    unclipped = [] if make.clip_actions else ["env.clip_actions=false"]
    return ["env=gym", shell.override("env.id", make.id), *kwargs, *seen_in, *unclipped]


def none(data: DataInfo | None, spec: Spec | None) -> None:
    """No environment: nothing is evaluated."""
    return None


def _check_vectorized(make: Make) -> None:
    """Raises UserError where the environment's own vectorised form is not there, or none that we can collect in."""
    if gymnasium.spec(make.id.rpartition(":")[2]).vector_entry_point is None:
        raise UserError(f"environment '{make.id}' has no vectorised form of its own: leave out env.vectorized")
    try:
        several = make.vector(1)
    except FAILURES as error:
        raise UserError(f"environment '{make.id}' cannot be made in its vectorised form: {first_line(error)}") from None
    with suppress(*FAILURES):
        several.close()
    problem, usual = None, gymnasium.vector.AutoresetMode.NEXT_STEP
    if spec_of("its vectorised form", several.single_observation_space, several.single_action_space) != task(make):
        problem = "has observations or actions of another kind in its vectorised form"
    mode = several.metadata.get("autoreset_mode", usual)
    # Some write the mode, others its name.
    if mode not in (usual, usual.value):
        problem = (
            "does not begin its episodes in the step after the last one's end (its autoreset_mode is "
            f"{getattr(mode, 'value', mode)}), so that true last observations are not seen"
        )
    if problem:
        raise UserError(f"environment '{make.id}' {problem}: leave out env.vectorized")


def _check(make: Make, data: DataInfo | None, spec: Spec | None, instead: str) -> None:
    """Makes the environment once, so that what is wrong with it is said before training."""
    with opened(make) as env:
        if data is None or spec is None:
            return
        named = data.eval_env_spec or data.env_spec
        missing = source.missing(env, make.wrappers or (named.additional_wrappers if named else ()))
        names = " and ".join(wrapper.name for wrapper in missing)
        if missing:
            instead = f"it was recorded through {names}, which is not there; {instead}"
        fit.check(env, make.id, make.clip_actions, data, spec, instead)
    if missing:
        again = "if scores depend on that, register an environment with it as my_module:MyEnv-v0"
        if all(map(source.recreated, missing)):
            again = "env=from_dataset puts that on"
        log.warning(
            "data set '%s' was recorded through %s, which environment '%s' has not: %s", data.id, names, make.id, again
        )
