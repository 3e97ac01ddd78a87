"""Makes registered environments, and says what their tasks are."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any

import gymnasium
from gymnasium.envs.registration import WrapperSpec

from awr_exp.envs import source
from awr_exp.envs.spaces import spec_of, unbounded
from awr_exp.errors import FAILURES, UserError, first_line, named
from awr_exp.surroundings import kept
from awr_exp.types import Spec

log = logging.getLogger(__name__)

MakeEnv = Callable[[], gymnasium.Env]

EXTRAS = {"mujoco": "mujoco", "box2d": "box2d", "Box2D": "box2d", "pygame": "box2d"}
"""The extra of this package that brings a module, by a part of the module's name."""


@dataclass(frozen=True)
class Make:
    """Makes the registered environment `id`.

    vectorized: runs collect in its own vectorised form; clip_actions: it gets actions within their bounds only;
    wrappers: what a data set was recorded through; collects: makes what makes the environments that runs collect in,
    where these are others. It raises UserError where they cannot be made, or do not fit the data.
    """

    id: str
    kwargs: Mapping[str, Any]
    vectorized: bool = False
    clip_actions: bool = True
    wrappers: Sequence[WrapperSpec] = ()
    collects: "Callable[[], Make] | None" = None

    @kept()
    def __call__(self) -> gymnasium.Env:
        if self.mujoco:
            _hear_mujoco()
        env = gymnasium.make(self.id, **self.kwargs)
        if ":" in self.id and env.unwrapped.spec:
            # gymnasium forgets the module, without which nobody else finds it.
            env.unwrapped.spec.id = self.id
        return source.put_on(env, self.wrappers)

    @property
    def mujoco(self) -> bool:
        """Whether the environment is one of MuJoCo. Raises gymnasium's error for one that is not registered."""
        module, _, name = self.id.rpartition(":")
        if module:
            # As gymnasium has it: module:Name-v0 is registered by importing the module.
            import_module(module)
        return "mujoco" in str(gymnasium.spec(name).entry_point)

    @property
    def drawn(self) -> "Make":
        """Makes the same environment, which draws pictures of itself."""
        return replace(self, kwargs={**self.kwargs, "render_mode": "rgb_array"})

    @kept()
    def vector(self, count: int) -> gymnasium.vector.VectorEnv:
        """`count` copies in its own vectorised form."""
        return gymnasium.make_vec(self.id, count, "vector_entry_point", **self.kwargs)


@cache
def _hear_mujoco() -> None:
    """Send MuJoCo's warnings to the log, each once: by itself it prints them anew for every environment."""
    try:
        import mujoco
    except ImportError:
        return  # gymnasium will say what is missing
    except Exception as error:
        backend = os.environ.get("MUJOCO_GL")
        wrong = (
            f"MUJOCO_GL={backend} is nothing that MuJoCo can draw with here" if backend else "MuJoCo cannot be imported"
        )
        raise UserError(f"{wrong} ({named(error)})") from None
    said = set()

    def hear(text: str) -> None:
        if text not in said:
            said.add(text)
            log.info("MuJoCo: %s", text)

    mujoco.set_mju_user_warning(hear)


def task(make: MakeEnv, as_played: bool = False) -> Spec:
    """The task that the environment's spaces describe; as_played: actions that it gets as they are have no bounds.

    Raises UserError for actions of another kind than ours.
    """
    with opened(make) as env:
        action, history = env.action_space, seen_at_once(env)
    if as_played and not clips(make):
        action = unbounded(action)
    spec = spec_of(f"environment '{env.spec.id if env.spec else env}'", env.observation_space, action)
    return replace(spec, history=1 if getattr(make, "vectorized", False) else history)


def seen_at_once(env: gymnasium.Env) -> int:
    """How many of its last observations an environment shows at once, as `Spec.history` has it."""
    stacks = type(env) is gymnasium.wrappers.FrameStackObservation and env.padding_type == "reset"
    return int(env.stack_size) if stacks else 1  # type: ignore[attr-defined]


def collecting(make: MakeEnv) -> MakeEnv:
    """What makes the environments that a run collects in, if it is evaluated in those of `make`. Raises UserError."""
    collects = getattr(make, "collects", None)
    return collects() if collects else make


def drawing(make: MakeEnv) -> MakeEnv:
    """What makes the same environments, but such that draw themselves, where it knows how to ask for that."""
    return getattr(make, "drawn", make)


def clips(make: MakeEnv) -> bool:
    """Whether the environments of `make` get actions within their bounds only."""
    return getattr(make, "clip_actions", True)


@contextmanager
def opened(make: MakeEnv) -> Iterator[gymnasium.Env]:
    """The environment for a while, and closed, whatever it says to that. Raises UserError if it cannot be made."""
    try:
        env = make()
    except UserError:
        raise
    except FAILURES as error:
        raise UserError(f"environment '{getattr(make, 'id', make)}' {_why_not(error)}") from None
    try:
        yield env
    finally:
        with suppress(*FAILURES):
            env.close()


def _why_not(error: BaseException) -> str:
    """Why an environment could not be made, and what can be done about it."""
    if isinstance(error, gymnasium.error.DependencyNotInstalled):
        extra = next((extra for name, extra in EXTRAS.items() if name in str(error)), None)
        hint = f"pip install 'awr-exp[{extra}]'" if extra else first_line(error)
        return f"needs a package that is not installed: {hint}, or env=none"
    why = named(error) if isinstance(error, SystemExit) else first_line(error)
    if isinstance(error, gymnasium.error.UnregisteredEnv):
        why += " Give the env.id of a registered one, or my_module:MyEnv-v0 for one of your own"
    return f"cannot be made: {why}"
