"""Actions of every space that has one sensible meaning are learnt from, offline and online; others are refused."""

import dataclasses
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Categorical as Reference
from torch.testing import assert_close

import awr_exp
from awr_exp import layout
from awr_exp.data.minari import load
from awr_exp.envs.build import task
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.make import gym
from awr_exp.envs.spaces import spec_of
from awr_exp.errors import UserError
from awr_exp.networks.actions import ActionInputs
from awr_exp.networks.heads import Categorical
from awr_exp.networks.mlp import MLP
from awr_exp.networks.numpy_policy import Uniform
from awr_exp.trained import TrainedPolicy
from awr_exp.types import Spec
from tests.conftest import composed, make_awr, refused, train

OBSERVATION = spaces.Box(-1, 1, (1,), np.float32)
SPACES: dict[str, spaces.Space] = {
    "several": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "table": spaces.MultiDiscrete([[2, 3], [2, 2]]),
    "switches": spaces.MultiBinary(3),
    "panel": spaces.MultiBinary([2, 2]),
    "whole": spaces.Box(-1, 1, (2,), np.int64),
    "matrix": spaces.Box(-1, 1, (2, 2), np.float32),
    "number": spaces.Box(-1, 1, (), np.float64),
    "pair": spaces.Tuple((spaces.Discrete(3, start=4), spaces.MultiBinary(2))),
    "nested": spaces.Dict(
        wheel=spaces.Discrete(2), arm=spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.Dict(on=spaces.Discrete(2))))
    ),
    "boxes": spaces.Dict(push=spaces.Box(-1, 1, (2,)), aim=spaces.Box(-1, 1, (1, 2), np.float64)),
}


def leaves(space: Any, action: Any) -> list[tuple[Any, Any]]:
    """The parts of a space without parts, each with its own of the action."""
    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() for leaf in leaves(part, action[key])]
    if isinstance(space, spaces.Tuple):
        return [leaf for part, own in zip(space.spaces, action, strict=True) for leaf in leaves(part, own)]
    return [(space, action)]


def badness(space: Any, action: Any, high: bool) -> float:
    """How far an action is from the best: the last choice of each or a half where `high`, else the first or its minus."""
    far = []
    for part, own in leaves(space, action):
        match part:
            case spaces.Discrete():
                best: Any = part.start + high * (part.n - 1)
            case spaces.MultiDiscrete():
                best = part.start + high * (part.nvec - 1)
            case spaces.MultiBinary():
                best = float(high)
            case _:
                best = (part.high if high else part.low) * (1.0 if part.dtype.kind == "i" else 0.5)
        wrong = np.asarray(own, float) - best
        far.append(np.minimum(np.abs(wrong), 1).ravel() if getattr(part.dtype, "kind", "i") == "i" else wrong.ravel())
    return float(np.square(np.concatenate(far)).mean())


class Dials(gymnasium.Env):
    """Shows one number after another, whose sign says which action is best in that step."""

    observation_space = OBSERVATION

    def __init__(self, space: str) -> None:
        self.action_space = SPACES[space]

    def _show(self) -> Any:
        self.shown = self.np_random.choice([-1, 1], 1) * self.np_random.uniform(0.5, 1, 1)
        return self.shown.astype(np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self._show(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        gained = -badness(self.action_space, action, bool(self.shown[0] > 0))
        self.count += 1
        return self._show(), gained, False, self.count == 20, {}


gymnasium.register("Dials-v0", f"{__name__}:Dials")


def stacked(space: Any, actions: list[Any]) -> Any:
    """Actions as an episode of Minari has them."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(part, [one[key] for one in actions]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [one[key] for one in actions]) for key, part in enumerate(space.spaces))
    return np.array(actions)


def record(id: str, space: str, episodes: int = 20, change: Any = lambda actions: actions) -> None:
    """A data set of random actions by Minari's own writer."""
    import minari
    from minari.data_collector import EpisodeBuffer

    env = gymnasium.make("Dials-v0", space=space)
    env.action_space.seed(0)
    buffers = []
    for seed in range(episodes):
        seen, actions, rewards = [env.reset(seed=seed)[0]], [], []
        for _ in range(20):
            actions.append(env.action_space.sample())
            obs, reward, *_ = env.step(actions[-1])
            seen.append(obs), rewards.append(reward)
        ends = [False] * 19 + [True]
        own = change(stacked(env.action_space, actions))
        buffers.append(EpisodeBuffer(None, None, None, np.array(seen), own, rewards, [False] * 20, ends, {}))
    minari.create_dataset_from_buffers(id, buffers, env=env)


def learnt(data: Any) -> TrainedPolicy:
    """The policy of a small agent after some updates on a data set whose steps are by themselves."""
    agent = make_awr(
        data.spec, dtype=torch.float32, network=partial(MLP, hidden=(32,)), gamma=0.0, beta=0.05, value_iters=1,
        actor_lr=0.02, critic_lr=0.02,
    )  # fmt: skip
    for update in range(120):
        rows = torch.randint(len(data), (1, 64), generator=torch.Generator().manual_seed(update))
        agent.update(data.sample(rows))
    return TrainedPolicy(data.spec, agent.policy, agent.state_dict(), 0)


def mistakes(policy: TrainedPolicy, space: str) -> float:
    """How bad a policy is in the environment itself, which gets its actions as they are."""
    env, bad = Dials(space), []
    for seed in range(3):
        obs, done = env.reset(seed=seed)[0], False
        while not done:
            obs, reward, _, done, _ = env.step(policy(obs))
            bad.append(-reward)
    return float(np.mean(bad))


@pytest.mark.parametrize("space", SPACES)
def test_every_space_is_learnt_from_offline(space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    record("test/dials-v0", space)
    data = load("test/dials-v0")
    make_env = gym(None, None, "Dials-v0", {"space": space})
    assert data.spec == task(make_env)
    assert mistakes(learnt(data), space) < 0.05
