"""What spaces say of a task, and environments behind one shape: flat observations, and actions that count from 0."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from awr_exp.errors import UserError
from awr_exp.layout import Entries, Entry, coarse, described, flatten
from awr_exp.machine import free_memory

if TYPE_CHECKING:
    # It would bring torch into workers that only step environments.
    from awr_exp.types import Spec

UNBOUNDED = 1e18
"""A bound of an action, either way from 0, that is none: from here on squares leave float32. Environments without
bounds often write float32's largest number."""


def spec_of(owner: str, observation: Any, action: Any) -> "Spec":
    """The shapes and bounds of a task of `owner`. Raises UserError for a space of another kind than ours."""
    from awr_exp.types import Spec

    entries = entries_of(owner, observation)
    obs_dim = sum(entry.width for entry in entries) if entries else observation.shape[0]
    seen: dict[str, Any] = {"observation": entries} if entries else {"dtype": str(observation.dtype)}
    if isinstance(action, spaces.Discrete):
        return Spec(obs_dim, num_actions=int(action.n), action_start=int(action.start), **seen)
    if not isinstance(action, spaces.Box) or len(action.shape) != 1 or not np.issubdtype(action.dtype, np.floating):
        raise UserError(f"{owner}: its actions are {action}; use a Discrete or a one-dimensional Box of floats")
    low, high = _bounds(action)
    if (low > high).any():
        entry = int((low > high).argmax())
        raise UserError(f"{owner}: entry {entry} of its actions is from {low[entry]:g} to {high[entry]:g}: swap them")
    if not (low < high).any():
        raise UserError(f"{owner}: its actions are {action}, which leaves nothing to choose")
    with np.errstate(invalid="ignore", over="ignore"):
        near = (low < high) & coarse(np.stack([low, high]))
    if near.any():
        entry = int(near.argmax())
        raise UserError(
            f"{owner}: entry {entry} of its actions is from {low[entry]:.12g} to {high[entry]:.12g}, between which "
            "float32 has hardly any numbers: subtract a constant from it in the data and in the environment"
        )
    return Spec(obs_dim, len(low), None, tuple(low.tolist()), tuple(high.tolist()), **seen)


def _bounds(box: spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Those of actions, infinite where they are so in effect."""
    none = min(UNBOUNDED, float(np.finfo(box.low.dtype).max))  # type: ignore[type-var]
    low, high = box.low.astype(np.float64), box.high.astype(np.float64)
    return np.where(low <= -none, -np.inf, low), np.where(high >= none, np.inf, high)


def entries_of(owner: str, space: Any) -> Entries:
    """Where the parts of an observation come from, in their order; none for a vector. Raises UserError."""
    entries = tuple(_entries(owner, space, ()))
    if not any(entry.width for entry in entries):
        raise UserError(f"{owner}: its observations are {space}, which holds nothing")
    return () if isinstance(space, spaces.Box) and len(space.shape) == 1 else entries


def _entries(owner: str, space: Any, path: tuple[str | int, ...]) -> Iterator[Entry]:
    match space:
        case spaces.Dict():
            for key, part in _sorted(space):
                yield from _entries(owner, part, (*path, key))
        case spaces.Tuple():
            for index, part in enumerate(space.spaces):
                yield from _entries(owner, part, (*path, index))
        case spaces.Box() | spaces.MultiBinary():
            yield Entry(path, space.shape, dtype=str(space.dtype))
        case spaces.Discrete():
            yield Entry(path, (), (int(space.n),), (int(space.start),), str(space.dtype))
        case spaces.MultiDiscrete():
            counts, starts = (tuple(each.flatten().tolist()) for each in (space.nvec, space.start))
            yield Entry(path, space.shape, counts, starts, str(space.dtype))
        case _:
            where = "/".join(map(str, path)) or "the observation"
            kinds = "Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"
            raise UserError(f"{owner}: {where} is a {type(space).__name__}, which has no flat form; use one of {kinds}")


def _sorted(space: spaces.Dict) -> list[tuple[str, Any]]:
    return sorted(((str(key), part) for key, part in space.spaces.items()), key=lambda item: item[0])


def canonical(space: Any) -> Any:
    """The space with all Dicts in the order of their keys, which are text, as a file will say it."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, canonical(part)) for key, part in _sorted(space)])
    return spaces.Tuple(map(canonical, space.spaces)) if isinstance(space, spaces.Tuple) else space


def mismatch(spec: "Spec", env: gymnasium.Env) -> str | None:
    """What tells data from an environment of the same sizes, if anything does, after "the data have"."""
    own = bare(env)
    entries, action = entries_of("", own.observation_space), own.action_space
    if spec.observation and entries and spec.observation != entries:
        return f"observations of {described(spec.observation)}, the environment of {described(entries)}"
    if bool(spec.observation) != bool(entries) and _flattens_otherwise(own):
        ours, theirs = ("observations in parts", "flat ones") if spec.observation else ("flat observations", "a Dict")
        order = "keys in another order than the alphabet's, so that nobody knows which column is which"
        return f"{ours}, the environment {theirs} of {order}"
    if isinstance(action, spaces.Discrete) and action.start != spec.action_start:
        return f"actions that begin at {spec.action_start}, the environment ones that begin at {action.start}"
    return None


def in_unknown_order(spec: "Spec", env: gymnasium.Env) -> bool:
    """Whether the data have parts, and the environment flat observations of which nobody says what they are made of."""
    return len(spec.observation) > 1 and not entries_of("", bare(env).observation_space) and _parts(env) is None


def _flattens_otherwise(env: gymnasium.Env) -> bool:
    """Whether its flat observations, or those that gymnasium would make, are in another order than ours."""
    return _order(parts := _parts(env)) != _order(canonical(parts))


def _parts(env: gymnasium.Env) -> gymnasium.Space | None:
    """The Dict or Tuple that the observations of an environment are made of, where there is one."""
    while not isinstance(env.observation_space, spaces.Dict | spaces.Tuple):
        if not isinstance(env, gymnasium.Wrapper):
            return None
        env = env.env
    return env.observation_space


def _order(space: Any) -> Any:
    if isinstance(space, spaces.Dict):
        return [(str(key), _order(part)) for key, part in space.spaces.items()]
    return [_order(part) for part in space.spaces] if isinstance(space, spaces.Tuple) else None


def flat(env: gymnasium.Env) -> gymnasium.Env:
    """The environment with flat observations, and actions that count from 0. Raises UserError if it cannot be."""
    name = f"environment '{env.spec.id if env.spec else env}'"
    entries, action = entries_of(name, env.observation_space), env.action_space
    width = sum(entry.width for entry in entries)
    # Even their space takes 10 bytes a number, and the smallest network more than the rest.
    if (needed := 64 * width) > (free := free_memory()):
        raise UserError(
            f"{name}: its observations are {width} numbers, which take {needed / 1e9:.0f} GB of memory with any "
            f"network, and {free / 1e9:.1f} GB are free: use a space with fewer choices, or with numbers instead"
        )
    shifted = isinstance(action, spaces.Discrete) and action.start != 0
    return Flat(Sorted(env) if entries else env, entries) if entries or shifted else env


def flat_vector(env: gymnasium.vector.VectorEnv) -> "FlatVector":
    """As `flat`, of an environment's own vectorised form."""
    return FlatVector(env, entries_of("its vectorised form", env.single_observation_space))


def bare(env: gymnasium.Env) -> gymnasium.Env:
    """The environment as its users know it."""
    while isinstance(env, Flat | Sorted):
        env = env.env
    return env


class Sorted(gymnasium.Wrapper):
    """Says the space of its observations in the order in which they are flattened."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = canonical(env.observation_space)


class _Flattening:
    """What both kinds of wrapper do; start: the number of the first action."""

    env: Any
    entries: Entries
    start: int

    def _set_spaces(self, observation: Any, action: Any) -> tuple[gymnasium.Space, gymnasium.Space]:
        """Flat ones, of those of one environment."""
        if self.entries:
            observation = spaces.Box(-np.inf, np.inf, (sum(entry.width for entry in self.entries),), np.float32)
        self.start = int(action.start) if isinstance(action, spaces.Discrete) else 0
        return observation, spaces.Discrete(int(action.n)) if self.start else action

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = self.env.reset(**options)
        return self._seen(obs), info

    def step(self, action: Any) -> Any:
        obs, *others = self.env.step(action + self.start if self.start else action)
        return self._seen(obs), *others

    def _seen(self, obs: Any) -> Any:
        return flatten(self.entries, obs) if self.entries else obs


class Flat(_Flattening, gymnasium.Wrapper):
    """What `flat` makes of an environment."""

    def __init__(self, env: gymnasium.Env, entries: Entries) -> None:
        gymnasium.Wrapper.__init__(self, env)
        self.entries = entries
        self.observation_space, self.action_space = self._set_spaces(env.observation_space, env.action_space)


class FlatVector(_Flattening, gymnasium.vector.VectorWrapper):
    """As `Flat`, of an environment's own vectorised form."""

    def __init__(self, env: gymnasium.vector.VectorEnv, entries: Entries) -> None:
        gymnasium.vector.VectorWrapper.__init__(self, env)
        self.entries = entries
        single = self._set_spaces(env.single_observation_space, env.single_action_space)
        self.single_observation_space, self.single_action_space = single
        self.observation_space, self.action_space = (batch_space(space, env.num_envs) for space in single)
