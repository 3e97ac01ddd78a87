"""Rooms with a light, and dark passages between them: `awr_exp.envs.dark_passages:DarkPassages-v0`.

In the dark every place looks the same, so that what is seen there does not say what to do. Who decides upon a whole way
in the light gets through. The best return is known: minus the steps of the dry ways.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.envs.several import One, Several

WAYS = np.array(
    [
        [[0, 2, 1, 1, 2], [1, 0, 0, 2, 0]],
        [[2, 0, 0, 1, 1], [0, 1, 2, 2, 1]],
        [[1, 2, 1, 0, 2], [2, 2, 0, 1, 0]],
        [[0, 1, 2, 0, 0], [2, 1, 0, 2, 1]],
    ]
)
"""Actions [passage, way, step] that lead through, which are left, straight on or right; the first way is dry."""
PASSAGES, _, STEPS = WAYS.shape
COSTS = np.array([1, 2])
"""What a step costs in a dry way or in a room, and what in a wet way."""
LIMIT = 60
"""Steps after which an episode is truncated."""
OBSERVATION, ACTION = spaces.Discrete(2 * PASSAGES + 1), spaces.Discrete(3)
"""The room n is seen as 2 n, and the dark behind it as 2 n + 1."""

Whole = NDArray[np.int64]


def moved(passage: Any, way: Any, done: Any, action: Any) -> tuple[Whole, Whole, Whole, Whole]:
    """Where walkers are after one action each, and what that cost: passage, way, steps done of it, costs; [...] each.

    The first action in a room chooses the way. One that leads against a wall changes nothing.
    """
    lit = np.equal(done, 0)
    way = np.where(lit, WAYS[passage, 1, 0] == action, way)
    on = WAYS[passage, way, done] == action
    cost = COSTS[np.where(lit & ~on, 0, way)]
    done = done + on
    there = done == STEPS
    return passage + there, way, np.where(there, 0, done), cost


class DarkPassagesVector(Several):
    """Steps `num_envs` of them at once; an episode begins in the step after the last one's end."""

    single_observation_space, single_action_space = OBSERVATION, ACTION

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode in each."""
        super().reset(seed=seed)
        self.passage, self.way, self.done, self.steps = np.zeros((4, self.num_envs), np.int64)
        self.over = np.zeros(self.num_envs, np.bool_)
        return self._seen(), {}

    def step(self, actions: Any) -> Any:
        """Takes actions [num_envs]."""
        new = self.over
        passage = np.where(new, 0, self.passage)
        self.passage, self.way, self.done, cost = moved(passage, self.way, self.done, actions)
        for place in (self.passage, self.done):
            place[new] = 0
        self.steps = np.where(new, 0, self.steps + 1)
        there = (self.passage == PASSAGES) & ~new
        late = (self.steps >= LIMIT) & ~there & ~new
        self.over = there | late
        return self._seen(), np.where(new, 0.0, -cost), there, late, {}

    def _seen(self) -> Whole:
        return 2 * self.passage + (self.done > 0)


class DarkPassages(One):
    """One of them. The best return is minus the number of steps of all dry ways, -20."""

    form = DarkPassagesVector
    observation_space, action_space = OBSERVATION, ACTION


gymnasium.register("DarkPassages-v0", f"{__name__}:DarkPassages", vector_entry_point=f"{__name__}:DarkPassagesVector")
