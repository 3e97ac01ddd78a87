"""Environments that do not fit are refused; evaluation gives true episode returns."""

import errno
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest
import torch

from awr_exp.config import check_trusted
from awr_exp.data import export
from awr_exp.envs.build import task
from awr_exp.envs.fleet import InProcess, Workers
from awr_exp.envs.make import from_dataset, gym, none
from awr_exp.envs.source import EnvSource
from awr_exp.envs.worker import HangsError
from awr_exp.errors import UserError
from awr_exp.training import evaluate
from awr_exp.training.evaluate import FIRST_SEED, Evaluator
from awr_exp.types import Spec
from tests.conftest import Crashing, make_awr

PENDULUM = Spec(3, 1, None, (-2.0,), (2.0,))
CARTPOLE = Spec(4, num_actions=2)


def source(env: Any = None, **metadata: Any) -> Any:
    """What a data set says of itself."""
    return SimpleNamespace(
        id="test/data-v0", env_spec=env, **({"eval_env_spec": None, "observation_space": None, "history": 1} | metadata)
    )


@pytest.mark.parametrize(
    ("id", "spec", "message"),
    [
        ("Nowhere-v0", PENDULUM, "'Nowhere-v0' cannot be made"),
        ("CartPole-v1", PENDULUM, "the data have 3 observation entries, the environment 4"),
        ("Pendulum-v1", Spec(3, num_actions=2), "the data have discrete actions, the environment continuous ones"),
        ("CartPole-v1", Spec(4, num_actions=3), "the data have 3 actions, the environment 2"),
        ("Pendulum-v1", Spec(3, 2, None, (-1.0,) * 2, (1.0,) * 2), "the data have 2 action entries"),
    ],
)
def test_an_environment_that_does_not_fit_is_named(id: str, spec: Spec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gym(source(), spec, id)


class Unclosable(gymnasium.Wrapper):
    def __init__(self) -> None:
        super().__init__(gymnasium.make("Pendulum-v1"))

    def close(self) -> None:
        raise AttributeError("no viewer")


gymnasium.register("Unclosable-v0", "tests.envs.test_envs:Unclosable")


def test_what_an_environment_says_to_being_closed_does_not_matter() -> None:
    assert task(gym(source(), PENDULUM, "Unclosable-v0")) == PENDULUM


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("No module named 'mujoco'")

    monkeypatch.setattr(gymnasium, "make", missing)
    with pytest.raises(UserError, match=r"pip install 'awr-exp\[mujoco\]'"):
        gym(source(), PENDULUM, "Hopper-v5")


def test_a_data_set_names_its_environment() -> None:
    env = from_dataset(source(EnvSource("Pendulum-v1", {"g": 9.0}, 7)), PENDULUM)()
    assert env.unwrapped.g == 9.0  # type: ignore[attr-defined]
    assert env.spec is not None
    assert env.spec.max_episode_steps == 7
    with pytest.raises(UserError, match="does not say where it was collected"):
        from_dataset(source(), PENDULUM)
    assert none(source(), PENDULUM) is None


def test_returns_are_those_of_single_episodes() -> None:
    """Two members, episodes of different lengths: nothing of an episode after the first is counted."""
    agent = make_awr(CARTPOLE, seeds=[0, 1])
    agent.actor.theta.normal_(generator=torch.Generator().manual_seed(1))
    make_env = gym(source(), CARTPOLE, "CartPole-v1")
    evaluator = Evaluator(make_env, members=2, episodes=5)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    played = evaluator.play(agent)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    for member in range(2):
        for episode in range(5):
            env = make_env()
            obs, _ = env.reset(seed=FIRST_SEED + episode)
            total, length, done = 0.0, 0, False
            while not done:
                stacked = torch.as_tensor(obs).double().expand(2, 1, 4)
                obs, reward, terminated, truncated, _ = env.step(int(agent.act(stacked)[member, 0]))
                total, length, done = total + float(reward), length + 1, terminated or truncated
            assert played.returns[member, episode] == total
            assert played.lengths[member, episode] == length
    assert len(set(played.lengths.flatten().tolist())) > 2
    np.testing.assert_array_equal(evaluator.play(agent).returns, played.returns)


def test_slow_environments_move_to_workers_and_back_when_one_dies(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(gymnasium.Wrapper):
        def step(self, action: object) -> tuple:
            time.sleep(2e-4)
            return self.env.step(action)

    monkeypatch.setattr(evaluate, "WORTHWHILE", 0.02)
    agent = make_awr(PENDULUM, seeds=[0, 1])
    evaluator = Evaluator(lambda: Slow(gymnasium.make("Pendulum-v1")), members=2, episodes=3, workers=2)
    here = evaluator.play(agent)
    fleet = evaluator.fleet
    assert isinstance(fleet, Workers)
    np.testing.assert_array_equal(evaluator.play(agent).returns, here.returns)
    assert isinstance(evaluator.fleet, Workers)
    fleet.hosts[1].process.kill()
    np.testing.assert_array_equal(evaluator.play(agent).returns, here.returns)
    assert isinstance(evaluator.fleet, InProcess)
    assert "evaluating anew, in this process from now on: a worker process died" in caplog.text
    evaluator.play(agent)
    assert isinstance(evaluator.fleet, InProcess)
    evaluator.close()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "Popen", Mock(side_effect=BlockingIOError(errno.EAGAIN, "no more")))
        evaluator.workers = 2
        np.testing.assert_array_equal(evaluator.play(agent).returns, here.returns)
    assert "evaluating in this process alone: a worker process cannot be started (no more)" in caplog.text
    np.testing.assert_array_equal(evaluator.play(agent).returns, here.returns)
    evaluator.close()
    quick = Evaluator(lambda: gymnasium.make("Pendulum-v1"), members=1, episodes=1, workers=2)
    quick.play(make_awr(PENDULUM))
    assert isinstance(quick.fleet, InProcess)


@pytest.mark.parametrize("where", ["make", "reset", "step", "exit", "nan", "reward", "shape"])
def test_an_episode_that_fails_is_begun_anew_and_its_member_given_up_when_it_fails_again_and_again(where: str) -> None:
    """`left` counts how often it still fails; begun: the seeds of all episodes."""
    left, begun = 0, []

    def fails(at: str) -> bool:
        nonlocal left
        left -= at == where
        return at == where and left >= 0

    class Failing(gymnasium.Wrapper):
        def __init__(self) -> None:
            if fails("make"):
                raise RuntimeError("no licence")
            super().__init__(gymnasium.make("Pendulum-v1"))

        def reset(self, *, seed: int, **options: Any) -> Any:
            begun.append(seed)
            if fails("reset"):
                raise RuntimeError("no licence")
            return self.env.reset(seed=seed, **options)

        def step(self, action: Any) -> Any:
            if fails("step"):
                raise RuntimeError("no licence")
            if fails("exit"):
                sys.exit(0)
            obs, reward, *others = self.env.step(action)
            obs = np.full(3, np.nan, np.float32) if fails("nan") else obs
            reward = np.zeros(2) if fails("reward") else reward
            return obs[:2] if fails("shape") else obs, reward, *others

    agent = make_awr(PENDULUM)
    whole = Evaluator(Failing, members=1, episodes=2).play(agent)
    assert (list(whole.failures), dict(whole.errors)) == ([[]], {})
    left, begun = 1, []
    played = Evaluator(Failing, members=1, episodes=2).play(agent)
    np.testing.assert_array_equal(played.returns, whole.returns)
    np.testing.assert_array_equal(played.lengths, whole.lengths)
    assert len(played.failures[0]) == 1
    assert set(begun) == {FIRST_SEED, FIRST_SEED + 1}
    left = 1_000_000
    played = Evaluator(Failing, members=1, episodes=2).play(agent)
    message = str(played.errors[0])
    assert "evaluating failed: the environment failed 30 times in one episode, the last time so: " in message
    assert "\n" not in message
    assert np.isnan(played.returns).all()


def test_where_it_fails_from_a_start_another_one_is_taken() -> None:
    """The other episodes are what they were, in both members."""
    agent = make_awr(PENDULUM, seeds=[0, 1])
    whole, played = (
        Evaluator(lambda: Crashing(gymnasium.make("Pendulum-v1"), bad, 10), members=2, episodes=3).play(agent)  # noqa: B023
        for bad in ((), {FIRST_SEED + 1})
    )
    np.testing.assert_array_equal(played.returns[:, [0, 2]], whole.returns[:, [0, 2]])
    assert np.isfinite(played.returns).all()
    assert (played.returns != whole.returns)[:, 1].all()
    assert [list(own) for own in played.failures] == [["RuntimeError: the simulator crashed"] * 2] * 2


def test_a_member_that_is_given_up_leaves_the_evaluation_of_the_others_alone() -> None:
    """By its actions, which are too large for the environment."""

    class Delicate(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            if abs(action.item()) > 1:
                raise RuntimeError("out of range")
            return self.env.step(action)

    agent = make_awr(PENDULUM, seeds=[0, 1, 2])
    agent.actor.theta[[0, 2]] = 0.0
    agent.actor.theta[1] = 30.0
    whole = Evaluator(partial(gymnasium.make, "Pendulum-v1"), members=3, episodes=2).play(agent)
    played = Evaluator(lambda: Delicate(gymnasium.make("Pendulum-v1")), members=3, episodes=2).play(agent)
    np.testing.assert_array_equal(played.returns[[0, 2]], whole.returns[[0, 2]])
    assert np.isnan(played.returns[1]).all()
    assert list(played.errors) == [1]
    assert [len(own) > 0 for own in played.failures] == [False, True, False]


def test_what_fails_in_workers_is_tried_here(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Once, it is begun anew where it is; for good, as where the worker does not know it, all is."""
    monkeypatch.setattr(evaluate, "WORTHWHILE", -1.0)
    here = os.getpid()

    def make_env() -> gymnasium.Env:
        return gymnasium.make("Pendulum-v1" if os.getpid() == here else "Nowhere-v0")

    agent = make_awr(PENDULUM)
    evaluator = Evaluator(make_env, members=1, episodes=2, workers=2)
    whole = evaluator.play(agent)
    assert isinstance(evaluator.fleet, Workers)
    np.testing.assert_array_equal(evaluator.play(agent).returns, whole.returns)
    assert isinstance(evaluator.fleet, InProcess)
    assert "in this process from now on: the environment failed 30 times in one episode, the last time" in caplog.text
    evaluator.close()

    class Once(gymnasium.Wrapper):
        broken = False

        def step(self, action: Any) -> Any:
            if os.getpid() != here and not Once.broken:
                Once.broken = True
                raise RuntimeError("the simulator crashed")
            return self.env.step(action)

    evaluator = Evaluator(lambda: Once(gymnasium.make("Pendulum-v1")), members=1, episodes=2, workers=2)
    evaluator.play(agent)
    played = evaluator.play(agent)
    np.testing.assert_array_equal(played.returns, whole.returns)
    assert [list(own) for own in played.failures] == [["RuntimeError: the simulator crashed"]]
    assert isinstance(evaluator.fleet, Workers)
    evaluator.close()


MODULE = """
import gymnasium, numpy as np
class Endless(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.{space}
    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {{}}
    def step(self, action):
        return np.zeros(2, np.float32), 1.0, False, False, {{}}
gymnasium.register("{name}-v0", "{name}:Endless")
"""


def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, space: str) -> str:
    (tmp_path / f"{name}.py").write_text(MODULE.format(name=name, space=space))
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:{name}-v0"


def test_an_environment_of_ones_own_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    id = own_module(tmp_path, monkeypatch, "endless", "Discrete(2)")
    make_env = gym(None, None, id)
    monkeypatch.setattr(evaluate, "LONGEST", 30)
    monkeypatch.setattr(evaluate, "LONG", 10)
    stopped: list[int] = []
    evaluator = Evaluator(make_env, members=1, episodes=2, stopped=lambda: stopped)
    # It has no end, but evaluation has.
    assert evaluator.play(make_awr(Spec(2, num_actions=2))).returns.tolist() == [[30, 30]]
    assert "has taken 10 steps so far, and episodes end after 30 at the latest: give the environment a" in caplog.text
    # Once it is time to stop, nobody waits for that.
    monkeypatch.setattr(evaluate, "PATIENCE", 0)
    stopped.append(15)
    with pytest.raises(HangsError, match="done anew when resumed"):
        evaluator.play(make_awr(Spec(2, num_actions=2)))
    # What a file names is not imported, but it does name it.
    env = make_env()
    assert env.spec is not None
    named = gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert export.command("a/b-v0", env).endswith("dataset.id=a/b-v0 env=gym env.id=endless:endless-v0")
    assert export.command("a/b-v0", env, clip_actions=False).endswith("endless-v0 env.clip_actions=false")
    seen = gymnasium.wrappers.FrameStackObservation(env, 4)
    said = "env.id=endless:endless-v0 'env.wrappers=[{FrameStackObservation:{stack_size:4,padding_type:reset}}]'"
    assert export.command("a/b-v0", seen).endswith(said)
    with pytest.raises(UserError, match=r"if you trust it, env=gym env\.id=endless:endless-v0"):
        from_dataset(source(named), Spec(2, num_actions=2))
    node = {"_target_": "awr_exp.envs.make.gym", "id": id, "kwargs": None}
    with pytest.raises(UserError, match="wants to import 'endless' for its environment"):
        check_trusted({"env": node}, tmp_path)
    check_trusted({"env": node}, tmp_path, ["endless"])


def test_observations_without_a_flat_form_are_refused() -> None:
    class Talking(gymnasium.Env):
        observation_space = gymnasium.spaces.Sequence(gymnasium.spaces.Discrete(3))
        action_space = gymnasium.spaces.Discrete(2)

    gymnasium.register("Talking-v0", Talking)
    with pytest.raises(
        UserError, match=r"its observations are a Sequence, which has no flat form; use one of Box, .*Tuple"
    ):
        task(gym(None, None, "Talking-v0"))


def test_one_that_exits_where_it_is_made_is_refused() -> None:
    gymnasium.register("Exiting-v0", lambda: sys.exit(0))
    with pytest.raises(UserError, match="environment 'Exiting-v0' cannot be made: SystemExit: 0"):
        gym(None, None, "Exiting-v0")


def test_a_vectorised_form_must_be_of_the_same_task_and_show_true_last_observations() -> None:
    class Shifted(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (2,))
        action_space = gymnasium.spaces.Discrete(2, start=1)

    class Larger(Shifted):
        action_space = gymnasium.spaces.Discrete(3, start=1)

    def hiding(num_envs: int, mode: object) -> gymnasium.vector.VectorEnv:
        envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * num_envs)
        envs.metadata = {"autoreset_mode": mode}
        return envs

    def vector(num_envs: int, broken: bool = False) -> gymnasium.vector.VectorEnv:
        if broken:
            raise RuntimeError("no licence")
        return gymnasium.vector.SyncVectorEnv([Larger] * num_envs)

    gymnasium.register("Shifted-v0", lambda broken=False: Shifted(), vector_entry_point=vector)
    gymnasium.register("Hiding-v0", lambda mode: gymnasium.make("CartPole-v1"), vector_entry_point=hiding)
    modes = gymnasium.vector.AutoresetMode
    for mode in (modes.SAME_STEP, modes.DISABLED, "SameStep", None):
        with pytest.raises(UserError, match=r"true last observations are not seen: leave out env\.vectorized"):
            gym(None, None, "Hiding-v0", {"mode": mode}, vectorized=True)
    for mode in (modes.NEXT_STEP, "NextStep"):
        gym(None, None, "Hiding-v0", {"mode": mode}, vectorized=True)
    with pytest.raises(UserError, match="actions of another kind in its vectorised form: leave out"):
        gym(None, None, "Shifted-v0", vectorized=True)
    with pytest.raises(UserError, match="cannot be made in its vectorised form: no licence"):
        gym(None, None, "Shifted-v0", {"broken": True}, vectorized=True)


@pytest.mark.parametrize(("space", "what"), [("Box(-1, 1, (0,))", "holds"), ("Box(1, 1, (2,))", "leaves")])
def test_actions_of_which_there_are_none_are_refused(
    space: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "odd" + "".join(filter(str.isalnum, space)).lower()
    with pytest.raises(UserError, match=rf"its actions are .*, which {what} nothing"):
        task(gym(None, None, own_module(tmp_path, monkeypatch, name, space)))
