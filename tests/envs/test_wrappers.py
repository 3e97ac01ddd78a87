"""Wrappers of gymnasium that a command line puts on an environment."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from awr_exp.envs.build import task
from awr_exp.envs.make import gym
from awr_exp.errors import UserError
from awr_exp.settings import check_ranges
from tests.conftest import composed


class Coloured(gymnasium.Env):
    """Shows its step in all pixels."""

    observation_space, action_space = spaces.Box(0, 255, (20, 24, 3), np.uint8), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.steps = 0
        return np.zeros((20, 24, 3), np.uint8), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return np.full((20, 24, 3), self.steps, np.uint8), 0.0, False, self.steps == 5, {}


gymnasium.register("Coloured-v0", Coloured)


def test_frames_are_grey_and_stacked() -> None:
    wrappers = ["GrayscaleObservation", {"FrameStackObservation": {"stack_size": 3}}]
    make = gym(None, None, "Coloured-v0", wrappers=wrappers)
    spec = task(make)
    assert spec.entries[0].shape == (3, 20, 24)
    assert spec.entries[0].kept == "uint8"
    env = make()
    env.reset(seed=0)
    obs = [env.step(0)[0] for _ in range(3)][-1]
    assert np.asarray(obs)[:, 0, 0].tolist() == [1, 2, 3]


def test_they_are_settings() -> None:
    chosen = "env.wrappers=[GrayscaleObservation,{FrameStackObservation:{stack_size:3}}]"
    cfg = composed("dataset=none", "trainer=online", "env=gym", "env.id=Coloured-v0", chosen)
    assert cfg["env"]["wrappers"][1] == {"FrameStackObservation": {"stack_size": 3}}
    for wrong in ("Gray", [3], [{"A": {}, "B": {}}]):
        with pytest.raises(UserError, match=r"env\.wrappers is .*; it must be a list of wrappers, each a name or"):
            check_ranges({"env": cfg["env"] | {"wrappers": wrong}})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"wrappers": ["GrayscaleObserved"]}, r"GrayscaleObserved is none .*; did you mean GrayscaleObservation\?"),
        ({"wrappers": ["RecordVideo"]}, "RecordVideo is none of gymnasium's"),
        ({"wrappers": [{"TimeLimit": 3}]}, r"give the arguments of TimeLimit by name, such as \{TimeLimit: \{argument"),
        ({"wrappers": [{"FrameStackObservation": {}}]}, "FrameStackObservation cannot be put on: .*stack_size"),
        ({"wrappers": ["TimeAwareObservation"], "vectorized": True}, "leave out env.vectorized"),
    ],
)
def test_what_cannot_be_put_on_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        gym(None, None, "Coloured-v0", **options)
