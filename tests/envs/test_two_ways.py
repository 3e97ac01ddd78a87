"""The boat of TwoWays-v0 reaches the goal on either side of the rock, and never by the mean of both ways."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awr_exp.data.builtin import two_ways
from awr_exp.envs import behaviour
from awr_exp.envs.episode import Act, play
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.make import gym
from awr_exp.envs.two_ways import SPREAD

ID = "awr_exp.envs.two_ways:TwoWays-v0"


@pytest.fixture
def fleet() -> InProcess:
    return InProcess(gym(None, None, ID), 2)


def sided(side: float) -> Act:
    """The built-in policy where it begins on this side."""
    best = behaviour.two_ways(0.0)
    return lambda obs, rng: best(np.array([obs[0], side * max(abs(float(obs[1])), 2 * SPREAD)], np.float32), rng)


@pytest.mark.parametrize(("act", "reward", "steps"), [(sided(1), 1, 10), (sided(-1), 1, 10), (None, 0, 3)])
def test_both_ways_are_equally_good_and_what_lies_between_is_not(
    fleet: InProcess, act: Act | None, reward: float, steps: int
) -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        episode = play(fleet, act or (lambda obs, rng: np.zeros(1, np.float32)), seed, rng)
        assert episode["reward"].sum() == reward
        assert len(episode["reward"]) <= steps
        assert episode["terminated"][-1]
        assert abs(episode["obs"][0, 1]) <= SPREAD


def test_the_built_in_policy_takes_both_ways_alike_and_always_arrives(fleet: InProcess) -> None:
    rng = np.random.default_rng(0)
    episodes = [play(fleet, behaviour.two_ways(0.0), seed, rng) for seed in range(100)]
    assert all(episode["reward"].sum() == 1 for episode in episodes)
    assert 35 < sum(episode["action"][0, 0] > 0 for episode in episodes) < 65


def test_the_vectorised_form_steps_as_one_does_and_begins_anew_in_the_step_after_an_end() -> None:
    make_env: Any = gym(None, None, ID, vectorized=True)
    form, one = make_env.vector(8), make_env().unwrapped
    rng = np.random.default_rng(0)
    obs, _ = form.reset(seed=0)
    over = np.zeros(8, np.bool_)
    ends = 0
    for _ in range(60):
        place, action = form.place.copy(), rng.uniform(-1, 1, (8, 1)).astype(np.float32)
        obs, reward, terminated, truncated, _ = form.step(action)
        for number in range(8):
            if over[number]:
                assert obs[number, 0] == -1
                assert abs(obs[number, 1]) <= SPREAD
                assert (reward[number], terminated[number], truncated[number]) == (0, False, False)
            else:
                one.place = place[number]
                expected = one.step(action[number])
                assert np.array_equal(obs[number], expected[0])
                assert (reward[number], terminated[number]) == expected[1:3]
        over = terminated
        ends += int(over.sum())
    assert ends > 20


@pytest.mark.slow
def test_a_new_process_finds_it_by_what_the_data_set_says(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    code = (
        "from awr_exp.data.minari import load\nfrom awr_exp.envs.make import from_dataset\n"
        "data = load('awr_exp/two-ways-v0')\nprint(from_dataset(data.info, data.spec)().spec.id)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout == f"{ID}\n", found.stderr


def test_its_data_begin_either_way_and_its_scores_are_those_of_random_and_of_the_best(
    datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    data = two_ways()
    assert (data.info.ref_min_score, data.info.ref_max_score) == (0, 1)
    assert 0.2 < data.info.return_mean < 0.8
