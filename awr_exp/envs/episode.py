"""Whole episodes of one environment."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.fleet import Fleet, Step
from awr_exp.errors import UserError
from awr_exp.networks.numpy_policy import Uniform
from awr_exp.seeding import child_seed, normal, numpy_generator
from awr_exp.surroundings import kept
from awr_exp.types import Spec

LONGEST = 100_000
"""Steps after which an episode of an environment without an end is stopped."""
ATTEMPTS = 30
"""Times that an episode is begun: of 1,000 steps, one in a thousand of which fails, every third attempt succeeds."""

Act = Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]
"""A policy: it maps one observation [obs_dim] to one action, by random numbers."""
Episode = dict[str, NDArray[Any]]
"""The steps of an episode, [S, ...] of each of obs, next_obs, action, reward, terminated and truncated."""


@kept()
def play(fleet: Fleet, act: Act, seed: int, rng: np.random.Generator) -> Episode:
    """Play an episode of environment 0 from `seed` on, which is truncated at the latest after LONGEST steps.

    Raises UserError where the environment fails.
    """

    def checked(step: Step) -> Step:
        if step.reasons:
            raise UserError(f"the environment failed: {step.reasons[0]} (in the episode from seed {seed})")
        return step

    first = np.zeros(1, np.int64)
    steps: list[tuple[Any, ...]] = []
    obs, done = checked(fleet.reset(first, np.array([seed]))).obs[0], False
    while not done:
        # A copy: it may be given in the same array again and again.
        action = np.array(act(obs, rng))
        step = checked(fleet.step(first, action[None]))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0]) or len(steps) == LONGEST - 1
        steps.append((obs, step.obs[0], action, step.reward[0], terminated, truncated))
        obs, done = step.obs[0], terminated or truncated
    names = ("obs", "next_obs", "action", "reward", "terminated", "truncated")
    return {name: np.array(column) for name, column in zip(names, zip(*steps, strict=True), strict=True)}


def play_seeded(fleet: Fleet, act: Act, seed: int, *names: object) -> Episode:
    """Play the episode of these names, or another one where the environment fails in it.

    Raises UserError where it fails again and again.
    """
    for attempt in range(ATTEMPTS):
        own = (*names, attempt) if attempt else names
        try:
            return play(fleet, act, child_seed(seed, "episode", *own) >> 32, numpy_generator(seed, "actions", *own))
        except UserError as error:
            reason = error
    raise UserError(f"{reason}, {ATTEMPTS} times in a row")


def at_random(spec: Spec) -> Act:
    """Draws actions evenly, see `Uniform`."""
    uniform = Uniform(spec)
    return lambda obs, rng: uniform(obs[None], normal(rng, 1, uniform.noise))[0]
