"""Observations that are seen together with those before them, as gymnasium stacks frames."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from omegaconf import OmegaConf

from awr_exp import collect
from awr_exp.building import place
from awr_exp.building.build import build
from awr_exp.building.task import open_task
from awr_exp.data.episodes import from_episodes
from awr_exp.data.holdout import of_episodes
from awr_exp.data.selection import select
from awr_exp.data.transitions import Transitions
from awr_exp.envs.source import asked, put_on
from awr_exp.envs.spaces import spec_of
from awr_exp.errors import UserError
from awr_exp.layout import Entry
from awr_exp.training import native
from awr_exp.types import Spec
from tests.conftest import composed

PARTS = (Entry(("a",), (2,)), Entry(("b",), (3, 2), dtype="uint8"), Entry(("c",), (), (4,), (1,), dtype="int64"))
TASK = Spec(12, 1, None, (-1.0,), (1.0,), observation=PARTS)
LENGTHS = 3, 1, 6


@pytest.fixture
def frames() -> list[list[dict[str, np.ndarray]]]:
    """The observations of each episode."""
    space = spaces.Dict(
        a=spaces.Box(-1, 1, (2,)), b=spaces.Box(0, 255, (3, 2), np.uint8), c=spaces.Discrete(4, start=1)
    )
    space.seed(0)
    return [[space.sample() for _ in range(length + 1)] for length in LENGTHS]


@pytest.fixture
def data(frames: list[list[dict[str, np.ndarray]]]) -> Transitions:
    episodes = []
    for seen in frames:
        obs = np.stack([TASK.flatten(one) for one in seen])
        rewards = np.arange(float(len(seen) - 1))
        episodes.append({"observations": obs, "actions": np.zeros((len(rewards), 1)), "rewards": rewards})
    return from_episodes("parts", TASK, episodes)


def stacked(seen: list[dict[str, np.ndarray]], count: int) -> list[np.ndarray]:
    """What a policy sees at each step, with the first observation in place of those before it."""
    padded = [seen[0]] * (count - 1) + seen
    parts = [[padded[t : t + count] for t in range(len(seen))]][0]
    return [TASK.stacked(count).flatten({k: np.stack([one[k] for one in own]) for k in "abc"}) for own in parts]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_what_is_seen_is_what_gymnasium_stacks(data: Transitions, frames: list, count: int) -> None:
    seen = select(data, history=count)
    assert seen.spec == TASK.stacked(count)
    assert seen.packed.shape == data.packed.shape
    batch = seen.sample(torch.arange(len(data)).unsqueeze(0), next_action=True)
    expected = [stacked(own, count) for own in frames]
    np.testing.assert_array_equal(batch.obs[0], [one for own in expected for one in own[:-1]])
    np.testing.assert_array_equal(batch.next_obs[0], [one for own in expected for one in own[1:]])
    np.testing.assert_array_equal(seen.observations(), [one for own in expected for one in own])
    value, following = seen.values(lambda obs: obs.sum(-1).unsqueeze(0), 4)
    torch.testing.assert_close(value[0], batch.obs[0].sum(-1))
    torch.testing.assert_close(following[0], batch.next_obs[0].sum(-1))
    # Frames of all places are in one unit.
    mean, _ = seen.obs_statistics()
    own, _ = data.obs_statistics()
    torch.testing.assert_close(mean[: 2 * count], own[:2].repeat(count))
    held = of_episodes(seen, np.array([False, False, True]), "one")
    torch.testing.assert_close(held.observations(), seen.observations()[-7:])


def test_the_environment_is_shown_alike(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    for choice in ([], ["env=gym", "env.id=Pendulum-v1"]):
        cfg = composed("dataset.history=3", *choice)
        data, make_env, spec = open_task(cfg, torch.device("cpu"))
        env = make_env()
        assert isinstance(env, gymnasium.wrappers.FrameStackObservation)
        assert env.observation_space.shape == spec.entries[0].shape == (3, 3)
        first, _ = env.reset(seed=0)
        np.testing.assert_array_equal(first[0], first[2])
        agent = build(cfg["agent"], spec=spec, seeds=[0])
        agent.fit_normalizer(*data.obs_statistics())
        assert not native.fits(agent)
        agent.update(data.sample(torch.arange(8).unsqueeze(0), target=agent.targets(data)["target"]))


@pytest.mark.parametrize("nested", [True, False])
def test_a_stack_of_choices_is_one_of_choices(nested: bool) -> None:
    class Gears(gymnasium.Env):
        observation_space = spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 0], [-1, 7]])
        if nested:
            observation_space = spaces.Dict(gears=observation_space, two=spaces.Tuple([spaces.MultiBinary(2)]))
        action_space = spaces.Discrete(2)

        def reset(self, **options: Any) -> Any:
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:
            return self.observation_space.sample(), 0.0, False, False, {}

    env = put_on(Gears(), [asked({"FrameStackObservation": {"stack_size": 3}})])
    spec = spec_of("a test", Gears.observation_space, env.action_space).stacked(3)
    assert replace(spec_of("a test", env.observation_space, env.action_space), history=3) == spec
    first, _ = env.reset()
    following = env.step(0)[0]
    assert env.observation_space.contains(first)
    assert env.observation_space.contains(following)
    assert spec.flatten(following).shape == (3 * spec.single.obs_dim,)


def test_longer_than_any_episode_is_refused(data: Transitions) -> None:
    with pytest.raises(UserError, match=r"dataset\.history=8 is longer than any .* longest has 7 observations"):
        select(data, history=8)


def test_what_collects_with_a_policy_that_sees_a_history_shows_it_one(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(composed("dataset.history=3")), tmp_path / ".hydra" / "config.yaml")
    content = {"env": composed("env=pendulum")["env"], "policy": str(tmp_path), "trust": []}
    with closing(collect._environment(content)()) as env:
        assert env.observation_space.shape == (3, 3)


def test_a_policy_that_sees_a_history_is_shown_one_wherever_it_plays() -> None:
    cfg = composed("env=pendulum")
    env = place.chosen(cfg["env"], {"history": 3})()
    assert env.observation_space.shape == (3, 3)
    assert place.chosen(cfg["env"], {"history": 1})().observation_space.shape == (3,)
