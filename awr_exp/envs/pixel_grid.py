"""A walk to a goal that is seen from above, as an image: `awr_exp.envs.pixel_grid:PixelGrid-v0`.

The shortest way is known: as many steps as rows and columns lie between. Places are rows [..., 2] of row and column.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.envs.several import One, Several

SIDE = 8
"""Rows and columns of the grid."""
CELL = 4
"""Rows and columns of pixels of a cell."""
LIMIT = 40
"""Steps after which an episode is truncated."""
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
"""What the actions add to a place: up, down, left, right."""
WALKER, GOAL = 0, 1
"""The channels that show the one and the other; the third one is dark."""
OBSERVATION = spaces.Box(0, 255, (SIDE * CELL, SIDE * CELL, 3), np.uint8)
ACTION = spaces.Discrete(len(MOVES))

Places = NDArray[np.int64]


def begun(rng: np.random.Generator, count: int) -> tuple[Places, Places]:
    """Places of the walkers and of other ones, the goals, [count, 2] each."""
    walker = rng.integers(SIDE**2, size=count)
    goal = (walker + rng.integers(1, SIDE**2, size=count)) % SIDE**2
    return np.stack(np.divmod(walker, SIDE), -1), np.stack(np.divmod(goal, SIDE), -1)


def moved(walker: Places, action: Any) -> Places:
    """The places after one action [...]; who walks against the edge stays."""
    return np.clip(walker + MOVES[action], 0, SIDE - 1)


def drawn(walker: Places, goal: Places) -> NDArray[np.uint8]:
    """The images [count, height, width, 3] of places [count, 2]."""
    cells = np.zeros((len(walker), SIDE, SIDE, 3), np.uint8)
    for channel, place in ((WALKER, walker), (GOAL, goal)):
        cells[np.arange(len(place)), *place.T, channel] = 255
    return cells.repeat(CELL, 1).repeat(CELL, 2)


def places(image: NDArray[Any], channel: int) -> Places:
    """Where images [..., height, width, 3] show the walker or the goal, [..., 2]."""
    cells = image[..., ::CELL, ::CELL, channel]
    return np.stack(np.divmod(cells.reshape(*cells.shape[:-2], -1).argmax(-1), SIDE), -1)


class PixelGridVector(Several):
    """Steps `num_envs` of them at once; an episode begins in the step after the last one's end.

    Every step costs 1 until the walker is at the goal.
    """

    single_observation_space, single_action_space = OBSERVATION, ACTION

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode in each."""
        super().reset(seed=seed)
        self.walker, self.goal = begun(self.np_random, self.num_envs)
        self.steps, self.over = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs, np.bool_)
        return drawn(self.walker, self.goal), {}

    def step(self, actions: Any) -> Any:
        """Takes actions [num_envs]."""
        new = self.over
        self.walker = moved(self.walker, actions)
        self.walker[new], self.goal[new] = begun(self.np_random, int(new.sum()))
        self.steps = np.where(new, 0, self.steps + 1)
        there = (self.walker == self.goal).all(-1) & ~new
        late = (self.steps >= LIMIT) & ~there & ~new
        self.over = there | late
        return drawn(self.walker, self.goal), np.where(new, 0.0, -1.0), there, late, {}


class PixelGrid(One):
    """One of them. The best return is minus the number of rows and columns from the walker to the goal."""

    form = PixelGridVector
    observation_space, action_space = OBSERVATION, ACTION


gymnasium.register("PixelGrid-v0", f"{__name__}:PixelGrid", vector_entry_point=f"{__name__}:PixelGridVector")
