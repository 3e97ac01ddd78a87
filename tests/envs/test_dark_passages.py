"""Single steps are stuck in the dark of DarkPassages-v0, and a chunk that is chosen in the light gets through."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import awr_exp
from awr_exp import collect, results
from awr_exp.data.builtin import dark_passages
from awr_exp.envs import behaviour
from awr_exp.envs.dark_passages import COSTS, LIMIT, PASSAGES, STEPS, WAYS, moved
from awr_exp.envs.episode import play
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.make import gym
from awr_exp.evaluate import __main__ as evaluate
from tests.conftest import composed, train

ID = "awr_exp.envs.dark_passages:DarkPassages-v0"


@pytest.mark.parametrize(("way", "cost"), list(enumerate(COSTS)))
def test_either_way_leads_through_and_the_dry_one_is_the_best(way: int, cost: int) -> None:
    env = gym(None, None, ID)()
    seen, _ = env.reset(seed=0)
    returns, shown = 0.0, [int(seen)]
    for action in WAYS[:, way].reshape(-1):
        seen, reward, terminated, truncated, _ = env.step(action)
        returns, shown = returns + reward, [*shown, int(seen)]
    assert terminated
    assert not truncated
    assert returns == -cost * PASSAGES * STEPS
    assert shown == [n for room in range(PASSAGES) for n in (2 * room, *[2 * room + 1] * (STEPS - 1))] + [2 * PASSAGES]


def test_whoever_acts_by_what_is_seen_alone_never_leaves_a_passage() -> None:
    """Each pair of an action in the light and one in the dark, in each passage."""
    for passage, light, dark in itertools.product(range(PASSAGES), range(3), range(3)):
        place: Any = (passage, 0, 0)
        for _ in range(LIMIT):
            *place, _ = moved(*place, dark if place[2] else light)
        assert place[0] == passage


def test_the_built_in_policy_remembers_the_way() -> None:
    fleet, rng = InProcess(gym(None, None, ID), 2 * PASSAGES + 1), np.random.default_rng(0)
    for wet, expected in ((0.0, -20), (1.0, -40)):
        assert play(fleet, behaviour.dark_passages(0.0, wet), 0, rng)["reward"].sum() == expected
    noisy = [play(fleet, behaviour.dark_passages(0.3, 0.5), seed, rng) for seed in range(20)]
    assert all(episode["terminated"][-1] for episode in noisy)
    assert 20 < np.mean([len(episode["reward"]) for episode in noisy]) < LIMIT


def test_the_vectorised_form_steps_as_one_does_and_begins_anew_in_the_step_after_an_end() -> None:
    make_env: Any = gym(None, None, ID, vectorized=True)
    form, ones, rng = make_env.vector(4), [make_env() for _ in range(4)], np.random.default_rng(0)
    seen, _ = form.reset(seed=0)
    for one in ones:
        one.reset()
    over, ends = np.zeros(4, np.bool_), 0
    for _ in range(3 * LIMIT):
        wanted = WAYS[form.passage % PASSAGES, form.way, form.done]
        action = np.where(rng.random(4) < 0.3 * np.arange(4), rng.integers(3, size=4), wanted)
        seen, reward, terminated, truncated, _ = form.step(action)
        for number, one in enumerate(ones):
            expected = (one.reset()[0], 0.0, False, False) if over[number] else one.step(action[number])[:4]
            assert (seen[number], reward[number], terminated[number], truncated[number]) == expected
        over = terminated | truncated
        ends += int(over.sum())
    assert ends > 8


SMALL = [
    *("experiment=dark_passages", "network.hidden=[32,32]", "trainer.updates=400", "trainer.eval_interval=400"),
    *("trainer.eval_episodes=2", "trainer.compile=false", "logger=jsonl", "agent.value_iters=2"),
]


@pytest.mark.long
def test_chunks_are_trained_to_the_optimum_and_single_steps_are_stuck(
    datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy of chunks is then loaded, evaluated, and refused where single steps are kept."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    data = dark_passages()
    assert (data.info.ref_max_score, data.info.ref_min_score < -60) == (-20, True)
    found = {}
    for steps in (1, 5):
        folder = tmp_path / str(steps)
        cfg = composed(*SMALL, f"dataset.action_chunk={steps}")
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(json.dumps(cfg))
        assert train([cfg], [folder])[0].error is None
        found[steps] = results.read(folder).metrics
    assert found[1]["eval/return_mean"] <= -LIMIT
    assert (found[5]["eval/return_mean"], found[5]["eval/length_mean"]) == (-20, 20)
    policy = awr_exp.load(tmp_path / "5")
    np.testing.assert_array_equal([policy(2 * room) for room in range(PASSAGES)], WAYS[:, 0])
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "5"), "episodes=2", "--json", str(tmp_path / "numbers.json")])
    evaluate.main()
    (row,) = json.loads((tmp_path / "numbers.json").read_text())
    assert (row["returns"], row["lengths"]) == ([-20, -20], [20, 20])
    monkeypatch.setattr(sys, "argv", ["", f"policy={tmp_path / '5'}", "dataset_id=my/chunks-v0", "episodes=1"])
    with pytest.raises(SystemExit, match="decides upon 5 steps at once"):
        collect.main()
