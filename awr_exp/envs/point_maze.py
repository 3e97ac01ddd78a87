"""A point that walks round a wall to a goal: `awr_exp.envs.point_maze:PointMaze-v0`.

It has the interface of gymnasium-robotics' GoalEnv: what is observed has the goal beside it, and the reward is a
function of what was achieved and what was desired. The shortest way is known. Places are rows [..., 2] of x and y.
"""

from itertools import product
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from awr_exp.envs.several import Several

MAZE = (*[9 * "."] * 3, *["######..."] * 3, *[9 * "."] * 3)
"""Rows of cells with sides of 1; # is a wall."""
FREE = np.pad(np.array([list(row) for row in MAZE]).T == ".", (0, 1))
"""Whether a cell [x, y] is no wall; those around the maze are, on the other side by the numbers -1."""
CELLS = np.argwhere(FREE)
"""The free cells [C, 2]."""
MOVES = np.array(sorted(product((-1, 0, 1), repeat=2), key=lambda move: abs(move[0]) + abs(move[1])))
"""The actions [9, 2] that lead to the same place in a neighbouring cell, the straight ones of two that do first."""
NUMBER = FREE.cumsum().reshape(FREE.shape) - 1
"""The number of a free cell [x, y] among them."""
NEAR = 0.5
"""Along either axis, how near to the goal is there: in its cell, since goals are in the middle of cells."""
FAR = 10
"""Steps to the goal at the least, from where an episode begins."""
LIMIT = 50
"""Steps after which an episode is truncated."""
PLACE = spaces.Box(0.0, float(len(MAZE)), (2,), np.float32)
OBSERVATION = spaces.Dict(observation=PLACE, achieved_goal=PLACE, desired_goal=PLACE)
ACTION = spaces.Box(-1.0, 1.0, (2,), np.float32)

Places = NDArray[np.float64]


def moved(place: Places, action: Any) -> Places:
    """The places after one action [..., 2], first along x and then along y; who walks against a wall stays."""
    place, way = np.array(place, np.float64), np.clip(action, -1, 1)
    for axis in (0, 1):
        new = place.copy()
        new[..., axis] += way[..., axis]
        x, y = (np.floor(new[..., one]).astype(np.int64) for one in (0, 1))
        place = np.where(FREE[x, y, None], new, place)
    return place


def _shortest() -> NDArray[np.float64]:
    """The steps [C, C] from each free cell to each other; a step leads to a neighbour, also across a corner."""
    # In which cell a move ends does not depend on the place in the one that it begins in.
    ends = np.floor(moved(np.repeat(CELLS[:, None] + 0.5, len(MOVES), 1), MOVES)).astype(np.int64)
    steps = np.where((ends[:, :, None] == CELLS).all(-1).any(1), 1.0, np.inf)
    np.fill_diagonal(steps, 0)
    for between in range(len(CELLS)):
        steps = np.minimum(steps, steps[:, between, None] + steps[between])
    return steps


SHORTEST = _shortest()
"""The steps [C, C] that the way from each free cell to each other takes at the least."""


PAIRS = np.argwhere(SHORTEST >= FAR)
"""The numbers [P, 2] of cells that an episode may begin and end in."""


def cells(place: Any) -> NDArray[np.int64]:
    """The numbers [...] of the free cells that places are in."""
    found: NDArray[np.int64] = NUMBER[tuple(np.moveaxis(np.floor(place).astype(np.int64), -1, 0))]
    return found


def best_return(place: Any, goal: Any) -> NDArray[np.float64]:
    """What the best policy gets from places to goals in the middle of cells: -1 for each step but the last."""
    return 1 - SHORTEST[cells(place), cells(goal)]


def begun(rng: np.random.Generator, count: int) -> tuple[Places, Places]:
    """Places anywhere in free cells, and goals in the middle of others that are far from them, [count, 2] each."""
    start, goal = CELLS[PAIRS[rng.integers(len(PAIRS), size=count)].T]
    return start + rng.uniform(0, 1, (count, 2)), goal + 0.5


def reached(achieved: Any, desired: Any) -> Any:
    """Whether places [..., 2] are at their goals, [...]."""
    return (np.abs(achieved - desired) < NEAR).all(-1)


class _Goals:
    """What gymnasium-robotics' GoalEnv says of goals, of one pair of them or of many."""

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """Every step costs 1, but for the one that leads to the goal."""
        return reached(achieved_goal, desired_goal) - 1.0

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """The goal ends an episode."""
        return reached(achieved_goal, desired_goal)

    def compute_truncated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """No goal cuts an episode."""
        return np.zeros_like(reached(achieved_goal, desired_goal))


class PointMazeVector(_Goals, Several):
    """Steps `num_envs` of them at once; an episode begins in the step after the last one's end."""

    single_observation_space, single_action_space = OBSERVATION, ACTION

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode in each."""
        super().reset(seed=seed)
        self.place, self.goal = begun(self.np_random, self.num_envs)
        self.steps, self.over = np.zeros(self.num_envs, np.int64), np.zeros(self.num_envs, np.bool_)
        return self._seen(), {}

    def step(self, actions: Any) -> Any:
        """Takes actions [num_envs, 2]."""
        new = self.over
        self.place = moved(self.place, actions)
        if new.any():
            self.place[new], self.goal[new] = begun(self.np_random, int(new.sum()))
        self.steps = np.where(new, 0, self.steps + 1)
        seen = self._seen()
        pair = seen["achieved_goal"], seen["desired_goal"]
        there = self.compute_terminated(*pair, {}) & ~new
        late = (self.steps >= LIMIT) & ~there & ~new
        self.over = there | late
        return seen, np.where(new, 0.0, self.compute_reward(*pair, {})), there, late, {}

    def _seen(self) -> dict[str, NDArray[np.float32]]:
        place = self.place.astype(np.float32)
        return {"observation": place, "achieved_goal": place.copy(), "desired_goal": self.goal.astype(np.float32)}


class PointMaze(_Goals, gymnasium.Env):
    """One of them: the action is a way of up to 1 along each axis. `best_return` is the best return."""

    observation_space, action_space = OBSERVATION, ACTION

    def __init__(self) -> None:
        self.one = PointMazeVector()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begins an episode."""
        super().reset(seed=seed)
        self.one.np_random = self.np_random
        seen, info = self.one.reset()
        return {key: part[0] for key, part in seen.items()}, info

    def step(self, action: Any) -> Any:
        """Takes an action [2]."""
        seen, (reward,), (there,), (late,), info = self.one.step(np.asarray(action)[None])
        return {key: part[0] for key, part in seen.items()}, float(reward), bool(there), bool(late), info


gymnasium.register("PointMaze-v0", f"{__name__}:PointMaze", vector_entry_point=f"{__name__}:PointMazeVector")
