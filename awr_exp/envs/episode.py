"""Whole episodes of one environment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.make import MakeEnv, made, observed, rewarded
from awr_exp.envs.rollout import BrokenEnvError, finite
from awr_exp.errors import FAILURES, UserError, named
from awr_exp.networks.acting import Uniform
from awr_exp.seeding import child_seed, normal, numpy_generator
from awr_exp.surroundings import kept

if TYPE_CHECKING:
    from awr_exp.types import Spec

LONGEST = 100_000
"""Steps after which an episode of an environment without an end is stopped."""
ATTEMPTS = 30
"""At one episode: of a thousand steps, where one step in a thousand fails, every third attempt comes to the end."""

Act = Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]
"""From one observation [obs_dim] to one action."""


@kept()
def play(env: gymnasium.Env, act: Act, seed: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Its steps from `seed` on, [S, ...] each; truncated at the latest after LONGEST.

    Actions get to the environment as they are. Raises UserError where the environment fails.
    """
    steps: list[tuple[Any, ...]] = []
    terminated = truncated = False
    shape = env.observation_space.shape
    try:
        with _guarded():
            # Copies: some environments write into the same array again and again.
            obs = finite(observed(env.reset(seed=seed)[0], shape)).copy()
        while not (terminated or truncated):
            action = np.array(act(obs, rng))
            with _guarded():
                # A copy here, too: some change their action in place.
                result, gained, terminated, truncated, _ = env.step(action.copy()[()])
                terminated, truncated = bool(terminated), bool(truncated)
                next_obs, reward = finite(observed(result, shape)).copy(), finite(np.array(rewarded(gained)))
            truncated = truncated or len(steps) == LONGEST - 1
            steps.append((obs, next_obs, action, reward, terminated, truncated))
            obs = next_obs
    except BrokenEnvError as error:
        raise UserError(f"{error} (in the episode from seed {seed})") from None
    names = ("obs", "next_obs", "action", "reward", "terminated", "truncated")
    columns = zip(*steps, strict=True)
    return {name: np.array(column) for name, column in zip(names, columns, strict=True)}


@contextmanager
def _guarded() -> Iterator[None]:
    """Whatever goes wrong in an environment, as BrokenEnvError."""
    try:
        yield
    except FAILURES as error:
        raise BrokenEnvError(f"the environment failed: {named(error)}") from None


class Stage:
    """An environment for whole episodes, each from a seed of its own; one that fails is made anew and begins another.

    failures: so far.
    """

    def __init__(self, make_env: MakeEnv) -> None:
        self.make_env, self.failures = make_env, 0
        self.env: gymnasium.Env | None = None

    def play(self, act: Act, seed: int, *names: object) -> dict[str, NDArray[Any]]:
        """As `play`, the episode of these names. Raises UserError where the environment fails again and again."""
        for attempt in range(ATTEMPTS):
            own = (*names, attempt) if attempt else names
            try:
                self.env = self.env or made(self.make_env)
                rng = numpy_generator(seed, "actions", *own)
                return play(self.env, act, child_seed(seed, "episode", *own) >> 32, rng)
            except UserError as error:
                reason = error
            self.failures += 1
            self.close()
        raise UserError(f"{reason}, {ATTEMPTS} times in a row")

    def close(self) -> None:
        with suppress(*FAILURES):
            if self.env:
                self.env.close()
        self.env = None


def at_random(spec: "Spec") -> Act:
    """Uniformly random actions."""
    uniform = Uniform(spec)
    return lambda obs, rng: uniform(obs[None], normal(rng, 1, uniform.noise))[0]
