"""A boat that a current carries past a rock, on either side: `awr_exp.envs.two_ways:TwoWays-v0`.

Both ways are as good as each other, and the mean of both leads onto the rock. Places are rows [..., 2] of x and y.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.envs.several import Several

START, GOAL = -1.0, 1.0
"""Where on the x axis an episode begins, and where it ends; the rock is in the middle."""
SPREAD = 0.05
"""How far from the axis an episode begins at most."""
STEP = 0.2
"""How far the current carries the boat along x in each step, and how far an action of 1 moves it along y."""
ROCK = 0.6
"""Radius of the rock. A boat that sets out at full speed passes it by 0.1; after a step straight on it is too late."""
HARBOUR = 0.2
"""How far from the axis the goal reaches."""
OBSERVATION = spaces.Box(-3.0, 3.0, (2,), np.float32)
ACTION = spaces.Box(-1.0, 1.0, (1,), np.float32)


def begun(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Places [count, 2] where episodes begin."""
    return np.stack([np.full(count, START), rng.uniform(-SPREAD, SPREAD, count)], -1)


def moved(place: NDArray[np.float64], action: Any) -> tuple[NDArray[np.float64], Any, Any]:
    """The places after one action [..., 1] each, the rewards there, and whether episodes are over."""
    across = np.asarray(action, np.float64)
    place = place + STEP * np.concatenate([np.ones_like(across), across], -1)
    x, y = np.moveaxis(place, -1, 0)
    # Ten steps of 0.2 are 2 only up to rounding.
    there = x > GOAL - STEP / 2
    return place, (there & (np.abs(y) < HARBOUR)).astype(np.float64), there | (np.hypot(x, y) < ROCK)


class TwoWays(gymnasium.Env):
    """The action is a speed across the current; the return is 1 if the boat is in the goal after 10 steps, else 0."""

    observation_space, action_space = OBSERVATION, ACTION

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        (self.place,) = begun(self.np_random, 1)
        return self.place.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        """Takes an action [1]."""
        self.place, reward, over = moved(self.place, action)
        return self.place.astype(np.float32), float(reward), bool(over), False, {}


class TwoWaysVector(Several):
    """Steps `num_envs` of them at once; an episode begins in the step after the last one's end."""

    single_observation_space, single_action_space = OBSERVATION, ACTION

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode in each."""
        super().reset(seed=seed)
        self.place, self.over = begun(self.np_random, self.num_envs), np.zeros(self.num_envs, np.bool_)
        return self.place.astype(np.float32), {}

    def step(self, actions: Any) -> Any:
        """Takes actions [num_envs, 1]."""
        new = self.over
        self.place, reward, over = moved(self.place, actions)
        self.place[new], self.over = begun(self.np_random, int(new.sum())), over & ~new
        never = np.zeros(self.num_envs, np.bool_)
        return self.place.astype(np.float32), np.where(new, 0.0, reward), self.over, never, {}


gymnasium.register("TwoWays-v0", f"{__name__}:TwoWays", vector_entry_point=f"{__name__}:TwoWaysVector")
