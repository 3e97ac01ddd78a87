"""The maze of goals: the shortest way is the best return, and steps say what the functions of its goals say."""

from typing import Any

import numpy as np
import pytest

from awr_exp.envs import behaviour, point_maze
from awr_exp.envs.make import gym

ID = "awr_exp.envs.point_maze:PointMaze-v0"


@pytest.mark.parametrize("seed", range(8))
def test_the_built_in_policy_has_the_best_return(seed: int) -> None:
    env, act, rng = gym(None, None, ID)(), behaviour.point_maze(0.0), np.random.default_rng(0)
    seen, _ = env.reset(seed=seed)
    best = point_maze.best_return(seen["achieved_goal"], seen["desired_goal"])
    total, over = 0.0, False
    while not over:
        seen, reward, over, _, _ = env.step(act(np.concatenate([seen[key] for key in sorted(seen)]), rng))
        total += reward
    assert total == best <= 1 - point_maze.FAR


def test_no_step_brings_a_point_nearer_than_one() -> None:
    rng = np.random.default_rng(0)
    place = rng.choice(point_maze.CELLS, 20_000) + rng.uniform(0, 1, (20_000, 2))
    after = point_maze.moved(place, rng.uniform(-1.5, 1.5, (20_000, 2)))
    steps = [point_maze.SHORTEST[point_maze.cells(one)] for one in (place, after)]
    assert (steps[1] >= steps[0] - 1).all()
    assert (steps[1] < steps[0]).any()


def test_a_step_says_what_the_functions_of_its_goals_say_in_both_forms() -> None:
    make_env: Any = gym(None, None, ID, vectorized=True)
    form, one, rng = make_env.vector(8), make_env().unwrapped, np.random.default_rng(0)
    one.reset(seed=0)
    walk = behaviour.point_maze(0.3)
    seen, _ = form.reset(seed=0)
    over, ends = np.zeros(8, np.bool_), [0, 0]
    for _ in range(120):
        flat = np.concatenate([seen[key] for key in sorted(seen)], -1)
        action = np.where(np.arange(8)[:, None] % 2, walk(flat, rng), 0).astype(np.float32)
        before = form.place.copy(), form.goal.copy(), form.steps.copy()
        seen, reward, terminated, truncated, _ = form.step(action)
        pair = seen["achieved_goal"], seen["desired_goal"]
        for number in np.flatnonzero(~over):
            one.one.place, one.one.goal, one.one.steps = (part[[number]] for part in before)
            one.one.over = np.zeros(1, np.bool_)
            own, *said = one.step(action[number])
            assert all(np.array_equal(part[number], own[key]) for key, part in seen.items())
            assert said[:3] == [reward[number], terminated[number], truncated[number]]
            assert said[0] == one.compute_reward(pair[0][number], pair[1][number], {})
            assert said[1] == one.compute_terminated(pair[0][number], pair[1][number], {})
        assert not reward[over].any()
        over = terminated | truncated
        ends[0] += int(terminated.sum())
        ends[1] += int(truncated.sum())
    assert min(ends) > 4
