"""Environments behind one shape: a flat observation, and an action that counts from 0 or is a vector."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.envs.spaces import FlatVector, bare, entries_of, flat, flat_vector, mismatch, spec_of
from awr_exp.errors import FAILURES, UserError, first_line, named

if TYPE_CHECKING:
    # It would bring torch into workers that only step environments.
    from awr_exp.types import Spec

log = logging.getLogger(__name__)

MakeEnv = Callable[[], gymnasium.Env]
LARGEST = float(np.finfo(np.float32).max)
"""Reward or observation, either way from 0, that a replay can hold."""

EXTRAS = {"mujoco": "mujoco", "box2d": "box2d", "Box2D": "box2d", "pygame": "box2d"}
"""What a missing module's name tells about the extra that brings it."""


class Source(Protocol):
    """What a data set says of the environment it was collected in."""

    id: str
    env_spec: Any


@dataclass(frozen=True)
class Make:
    """Makes the registered environment `id`.

    vectorized: runs collect in its own vectorised form; clip_actions: it gets actions within their bounds only.
    """

    id: str
    kwargs: Mapping[str, Any]
    vectorized: bool = False
    clip_actions: bool = True

    def __call__(self) -> gymnasium.Env:
        return _make(self.id, self.kwargs)

    def vector(self, count: int) -> FlatVector:
        """`count` copies in one."""
        return flat_vector(gymnasium.make_vec(self.id, count, "vector_entry_point", **self.kwargs))


def gym(
    data: Source | None,
    spec: "Spec | None",
    id: str,
    kwargs: Mapping[str, Any] | None = None,
    vectorized: bool = False,
    clip_actions: bool = True,
) -> MakeEnv:
    """The registered environment `id`. Raises UserError if it cannot be made or does not fit the data set, if any."""
    make = Make(id, dict(kwargs or {}), vectorized, clip_actions)
    _check(make, data, spec)
    if vectorized:
        _check_vectorized(make)
    return make


def from_dataset(data: Source | None, spec: "Spec | None") -> MakeEnv:
    """The environment that the data set names, by its registered id: no code path of the metadata is followed."""
    if data is None:
        raise UserError("env=from_dataset needs a data set: choose an environment such as env=pendulum")
    env = data.env_spec
    if env is None:
        raise UserError(
            f"data set '{data.id}' does not say where it was collected: choose env=gym env.id=... or env=none"
        )
    # Actions without bounds were played as they were, and so the rewards are of those.
    clip = spec is None or spec.discrete or bool(np.isfinite([*spec.action_low, *spec.action_high]).any())
    if foreign_module(env.id):
        raise UserError(
            f"data set '{data.id}' was collected in '{env.id}', which would import a module: if you trust it, "
            f"{as_settings(env, clip)}"
        )
    options = dict(env.kwargs or {})
    if env.max_episode_steps is not None:
        options["max_episode_steps"] = env.max_episode_steps
    return gym(data, spec, env.id, options, clip_actions=clip)


def foreign_module(id: str) -> str | None:
    """The module that making the environment `id` would import, if there is one and it is none of ours."""
    module, _, _ = id.rpartition(":")
    return module if module and not module.startswith("awr_exp.") else None


def as_settings(spec: Any, clip_actions: bool = True) -> str:
    """What chooses the environment of gymnasium's EnvSpec on the command line."""
    kwargs = [f"+env.kwargs.{name}={value}" for name, value in spec.kwargs.items()]
    return " ".join([f"env=gym env.id={spec.id}", *kwargs, *([] if clip_actions else ["env.clip_actions=false"])])


def none(data: Source | None, spec: "Spec | None") -> None:
    """No evaluation."""
    return None


def _make(id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    module, _, _ = id.rpartition(":")
    if module:
        # As gymnasium has it: module:Name-v0 is registered by importing the module.
        import_module(module)
    if "mujoco" in str(gymnasium.spec(id.removeprefix(f"{module}:")).entry_point):
        _hear_mujoco()
    env = gymnasium.make(id, **kwargs)
    if module and env.unwrapped.spec:
        # gymnasium forgets the module, without which nobody else finds it.
        env.unwrapped.spec.id = id
    return flat(env)


@cache
def _hear_mujoco() -> None:
    """Send MuJoCo's warnings to the log, each once: by itself it prints them anew for every environment."""
    try:
        import mujoco
    except ImportError:
        return  # gymnasium will say what is missing
    said = set()

    def hear(text: str) -> None:
        if text not in said:
            said.add(text)
            log.info("MuJoCo: %s", text)

    mujoco.set_mju_user_warning(hear)


def observed(obs: Any, shape: tuple[int, ...] | None) -> NDArray[np.float32]:
    """An observation as float32. Raises ValueError if it has not the `shape` of its space."""
    array = np.asarray(obs, np.float32)
    if array.shape != shape:
        raise ValueError(f"its observation has the shape {array.shape}, its space {shape}")
    return array


def rewarded(reward: Any) -> float:
    """A reward, which is one number in whatever shape; nan if a replay, of float32, cannot hold it.

    Raises ValueError if it is none or several.
    """
    if not isinstance(reward, float):  # hardly ever
        array = np.asarray(reward, np.float64)
        if array.size != 1:
            raise ValueError(f"its reward has the shape {array.shape}: it must be one number")
        reward = array.item()
    return reward if abs(reward) <= LARGEST else math.nan


def task(make: MakeEnv, as_played: bool = False) -> "Spec":
    """What the environment's spaces say; as_played: of actions, what `played_space` says.

    Raises UserError for actions of another kind than ours.
    """
    with opened(make) as env:
        own = bare(env)
        action = played_space(make, env) if as_played else own.action_space
    return spec_of(f"environment '{env.spec.id if env.spec else env}'", own.observation_space, action)


def clips(make: MakeEnv) -> bool:
    """Whether its environments get actions within their bounds only."""
    return getattr(make, "clip_actions", True)


def played_space(make: MakeEnv, env: gymnasium.Env) -> gymnasium.Space:
    """Of the actions that `env`, one of its environments, gets: without bounds, where it gets them as they are."""
    space = bare(env).action_space
    if clips(make) or not isinstance(space, spaces.Box):
        return space
    return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)


def made(make: MakeEnv) -> gymnasium.Env:
    """The environment. Raises UserError if it cannot be made."""
    id = getattr(make, "id", make)
    try:
        return flat(make())
    except UserError:
        raise
    except gymnasium.error.DependencyNotInstalled as error:
        extra = next((extra for name, extra in EXTRAS.items() if name in str(error)), None)
        hint = f"pip install 'awr-exp[{extra}]'" if extra else first_line(error)
        raise UserError(f"environment '{id}' needs a package that is not installed: {hint}, or env=none") from None
    except gymnasium.error.UnregisteredEnv as error:
        raise UserError(
            f"environment '{id}' cannot be made: {first_line(error)} Give the env.id of a registered one, or "
            "my_module:MyEnv-v0 for one of your own"
        ) from None
    except Exception as error:
        raise UserError(f"environment '{id}' cannot be made: {first_line(error)}") from None
    except SystemExit as stop:
        raise UserError(f"environment '{id}' cannot be made: {named(stop)}") from None


@contextmanager
def opened(make: MakeEnv) -> Iterator[gymnasium.Env]:
    """`made` for a while, and closed, whatever it says to that."""
    env = made(make)
    try:
        yield env
    finally:
        with suppress(*FAILURES):
            env.close()


def _check_vectorized(make: Make) -> None:
    if gymnasium.spec(make.id.rpartition(":")[2]).vector_entry_point is None:
        raise UserError(f"environment '{make.id}' has no vectorised form of its own: leave out env.vectorized")
    with opened(make) as one:
        alone = _kind(bare(one).observation_space, bare(one).action_space)
    try:
        several = make.vector(1)
    except FAILURES as error:
        raise UserError(f"environment '{make.id}' cannot be made in its vectorised form: {first_line(error)}") from None
    single = _kind(several.env.single_observation_space, several.env.single_action_space)
    with suppress(*FAILURES):
        several.close()
    mode = several.metadata.get("autoreset_mode", gymnasium.vector.AutoresetMode.NEXT_STEP)
    if mode != gymnasium.vector.AutoresetMode.NEXT_STEP:
        raise UserError(
            f"environment '{make.id}' begins episodes within the step that ends the last (autoreset {mode.value}), and "
            "so hides true last observations: leave out env.vectorized"
        )
    if alone != single:
        raise UserError(
            f"environment '{make.id}' has observations or actions of another kind in its vectorised form: leave out "
            "env.vectorized"
        )


def _kind(observation: Any, action: Any) -> tuple[Any, ...]:
    """Of a task, what must be the same in all of its forms."""
    return entries_of("", observation) or observation, action


def _check(make: Make, data: Source | None, spec: "Spec | None") -> None:
    """Makes the environment once, so that what is wrong with it is said before training."""
    id = make.id
    with opened(make) as env:
        obs, action = env.observation_space.shape, env.action_space
        other = mismatch(spec, env) if spec else None
    if data is None or spec is None:
        return
    if obs != (spec.obs_dim,):
        problem = f"{spec.obs_dim} observation entries, the environment {obs[0] if obs else 0}"
    elif spec.discrete != isinstance(action, spaces.Discrete):
        kind = {True: "discrete", False: "continuous"}
        problem = f"{kind[spec.discrete]} actions, the environment {kind[not spec.discrete]} ones"
    elif spec.discrete and action.n != spec.num_actions:  # type: ignore[attr-defined]
        problem = f"{spec.num_actions} actions, the environment {action.n}"  # type: ignore[attr-defined]
    elif not spec.discrete and action.shape != (spec.action_dim,):
        problem = f"{spec.action_dim} action entries, the environment {action.shape[0] if action.shape else 0}"
    elif other:
        problem = other
    else:
        return
    raise UserError(
        f"environment '{id}' does not fit data set '{data.id}': the data have {problem}; "
        "choose env=from_dataset or env=none"
    )
