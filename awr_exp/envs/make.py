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
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from awr_exp import shell
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

    def vector(self, count: int) -> gymnasium.vector.VectorEnv:
        """`count` copies in one."""
        return gymnasium.make_vec(self.id, count, "vector_entry_point", **self.kwargs)


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
            f"{shell.words(*overrides(env, clip))}"
        )
    options = dict(env.kwargs or {})
    if env.max_episode_steps is not None:
        options["max_episode_steps"] = env.max_episode_steps
    return gym(data, spec, env.id, options, clip_actions=clip)


def foreign_module(id: str) -> str | None:
    """The module that making the environment `id` would import, if there is one and it is none of ours."""
    module, _, _ = id.rpartition(":")
    return module if module and not module.startswith("awr_exp.") else None


def overrides(spec: Any, clip_actions: bool = True) -> list[str]:
    """Those that choose the environment of gymnasium's EnvSpec."""
    kwargs = [shell.override(f"+env.kwargs.{name}", value) for name, value in (spec.kwargs or {}).items()]
    unclipped = [] if clip_actions else ["env.clip_actions=false"]
    return ["env=gym", shell.override("env.id", spec.id), *kwargs, *unclipped]


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
    return _flat(env)


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


def spec_of(owner: str, obs_dim: int, action: Any) -> "Spec":
    """The shapes and bounds of a task of `owner`. Raises UserError for an action space of another kind."""
    from awr_exp.types import Spec

    if isinstance(action, spaces.Discrete):
        return Spec(obs_dim, num_actions=int(action.n))
    if isinstance(action, spaces.Box) and len(action.shape) == 1 and _is_range(action):
        low, high = (tuple(map(float, bound)) for bound in (action.low, action.high))
        return Spec(obs_dim, action.shape[0], None, low, high)
    raise UserError(f"{owner}: its actions are {action}; use a Discrete or a one-dimensional Box of floats")


def _is_range(box: spaces.Box) -> bool:
    """Whether there is something to choose, in numbers that a policy gives."""
    return box.shape != (0,) and np.issubdtype(box.dtype, np.floating) and bool((box.low < box.high).all())


def _flat(env: gymnasium.Env) -> gymnasium.Env:
    if not isinstance(env.observation_space, spaces.Box) or len(env.observation_space.shape) != 1:
        env = gymnasium.wrappers.FlattenObservation(env)
    if not isinstance(env.observation_space, spaces.Box):
        raise TypeError(f"its observations are {env.observation_space}, which have no flat form")
    if isinstance(env.action_space, spaces.Discrete) and env.action_space.start != 0:
        env = FromZero(env)
    return env


class FromZero(gymnasium.ActionWrapper, RecordConstructorArgs):
    """Counts discrete actions from 0. It can be named in a data set, as one with a function of its own cannot."""

    def __init__(self, env: gymnasium.Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        assert isinstance(env.action_space, spaces.Discrete)
        self.start, self.action_space = env.action_space.start, spaces.Discrete(int(env.action_space.n))

    def action(self, action: Any) -> Any:
        return action + self.start


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
        obs, action = env.observation_space.shape, played_space(make, env) if as_played else env.action_space
    assert obs is not None
    return spec_of(f"environment '{env.spec.id if env.spec else env}'", obs[0], action)


def clips(make: MakeEnv) -> bool:
    """Whether its environments get actions within their bounds only."""
    return getattr(make, "clip_actions", True)


def played_space(make: MakeEnv, env: gymnasium.Env) -> gymnasium.Space:
    """Of the actions that `env`, one of its environments, gets: without bounds, where it gets them as they are."""
    space = env.action_space
    if clips(make) or not isinstance(space, spaces.Box):
        return space
    return spaces.Box(-np.inf, np.inf, space.shape, space.dtype)


def made(make: MakeEnv) -> gymnasium.Env:
    """The environment. Raises UserError if it cannot be made."""
    id = getattr(make, "id", make)
    try:
        return make()
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
        alone = one.observation_space, one.action_space
    try:
        several = make.vector(1)
    except FAILURES as error:
        raise UserError(f"environment '{make.id}' cannot be made in its vectorised form: {first_line(error)}") from None
    single = several.single_observation_space, several.single_action_space
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
            f"environment '{make.id}' has observations or actions that its vectorised form cannot give flat or "
            "count from 0: leave out env.vectorized"
        )


def _check(make: Make, data: Source | None, spec: "Spec | None") -> None:
    """Makes the environment once, so that what is wrong with it is said before training."""
    id = make.id
    with opened(make) as env:
        obs, action = env.observation_space.shape, env.action_space
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
    else:
        return
    raise UserError(
        f"environment '{id}' does not fit data set '{data.id}': the data have {problem}; "
        "choose env=from_dataset or env=none"
    )
