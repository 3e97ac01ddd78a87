"""The grid that is seen in images: what it shows, and the best that can be done there."""

from pathlib import Path

import numpy as np
import pytest

from awr_exp.envs import behaviour, pixel_grid
from awr_exp.envs.make import gym
from tests.conftest import composed, train

ID = "awr_exp.envs.pixel_grid:PixelGrid-v0"


@pytest.mark.parametrize("seed", range(20))
def test_the_best_return_is_the_number_of_rows_and_columns_between(seed: int) -> None:
    env, act, rng = gym(None, None, ID)(), behaviour.pixel_grid(0.0), np.random.default_rng(0)
    image, _ = env.reset(seed=seed)
    between = np.abs(pixel_grid.places(image, pixel_grid.GOAL) - pixel_grid.places(image, pixel_grid.WALKER)).sum()
    total, over = 0.0, False
    while not over:
        image, reward, over, _, _ = env.step(act(image.reshape(-1), rng))
        total += reward
    assert total == -between


def test_who_walks_against_the_edge_stays_until_the_episode_is_cut() -> None:
    env = gym(None, None, ID)()
    env.reset(seed=0)
    steps = [env.step(0) for _ in range(pixel_grid.LIMIT)]
    assert [step[3] for step in steps] == [False] * (pixel_grid.LIMIT - 1) + [True]
    np.testing.assert_array_equal(steps[-1][0], steps[-2][0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_shortest_ways_are_learnt_from_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "data"))
    cfgs = [composed("experiment=pixel_grid", f"agent={agent}", "logger=jsonl") for agent in ("awr", "bc")]
    learnt, cloned = (
        train([cfg], [tmp_path / str(number)])[0].metrics["eval/return_mean"] for number, cfg in enumerate(cfgs)
    )
    # The best is -5.33.
    assert learnt > -6
    assert cloned < learnt - 5
