"""Playing on and on: what an environment does wrong ends its episode, is counted, and loses nothing else."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest

from awr_exp.envs.episode import play
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.make import gym
from awr_exp.envs.rollout import BrokenEnvError, Driver, Rollout
from awr_exp.networks.numpy_policy import Uniform
from awr_exp.types import Spec

POLICY = Uniform(Spec(3, 1, None, (-2.0,), (2.0,)))


class Failing(gymnasium.Wrapper):
    """Goes wrong in a certain way at its 13th step."""

    def __init__(self, how: Callable[[], Any], often: bool = False) -> None:
        super().__init__(gymnasium.make("Pendulum-v1"))
        self.how, self.often, self.count = how, often, 0

    def step(self, action: Any) -> Any:
        self.count += 1
        result = self.env.step(action)
        if self.count == 13 or self.often:
            wrong = self.how()
            return (*wrong, *result[len(wrong) :])
        return result


def crash() -> Any:
    raise RuntimeError("the simulator crashed")


WAYS = {
    "raises": (crash, "RuntimeError: the simulator crashed"),
    "exits": (sys.exit, "SystemExit"),
    "nan": (lambda: (np.full(3, np.nan),), "not finite"),
    "a reward that float32 cannot hold": (lambda: (np.zeros(3, np.float32), 1e39), "not finite"),
    "inf reward": (lambda: (np.zeros(3), np.inf), "not finite"),
    "two rewards": (lambda: (np.zeros(3), np.zeros(2)), "its reward has the shape"),
    "shape": (lambda: (np.zeros(1),), "its observation has the shape"),
}


def follows(rollout: Rollout) -> np.ndarray:
    return (rollout.obs[1:] == rollout.next_obs[:-1]).all(-1)


def broken(rollout: Rollout) -> np.ndarray:
    """Where an episode begins because the environment failed in the one before, [S, K, E]."""
    begins = np.diff(rollout.episode, axis=0, prepend=0) > 0
    begins[1:] &= ~rollout.done[:-1]
    np.testing.assert_array_equal(begins, rollout.failures > 0)
    return begins


def open_episode(rollout: Rollout) -> Any:
    return (rollout.episode[-1] + rollout.done[-1]).tolist()


class Vectorised:
    """The environment that `vector` makes."""

    vectorized = True
    clip_actions = True


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_ends_one_episode(way: str) -> None:
    how, reason = WAYS[way]
    driver = Driver(partial(Failing, how), 3, [1, 2], [0, 1])
    # Only this one: the others never get to their 13th step.
    for lane in (0, 1, 3):
        driver.fleet.envs[lane].count = 100
    rollout = driver.play(POLICY, 40, 0)
    expected = np.zeros((40, 2, 2), bool)
    expected[12, 1, 0] = True
    # The new environment fails at its 13th step, too.
    expected[24, 1, 0] = expected[36, 1, 0] = True
    np.testing.assert_array_equal(broken(rollout), expected)
    np.testing.assert_array_equal(follows(rollout), ~expected[1:])
    assert all(np.isfinite(part).all() for part in (rollout.obs, rollout.next_obs, rollout.reward, rollout.action))
    assert open_episode(rollout) == [[0, 0], [3, 0]]
    assert rollout.failures.sum(0).tolist() == [[0, 0], [3, 0]]
    assert len(rollout.reasons) == 3
    assert reason in rollout.reasons[0][1]


@pytest.mark.parametrize("way", WAYS)
def test_one_that_always_fails_is_given_up(way: str) -> None:
    how, reason = WAYS[way]
    driver = Driver(partial(Failing, how, often=True), 3, [1], [0])
    with pytest.raises(BrokenEnvError, match=f"failed 10 times in a row: .*{reason}"):
        driver.play(POLICY, 40, 0)


@pytest.mark.parametrize(
    ("first", "reason"), [(np.full(3, np.nan), "not finite"), (np.zeros(1), r"the shape \(1,\), its space \(3,\)")]
)
def test_one_that_does_not_begin_is_given_up(first: np.ndarray, reason: str) -> None:
    class Mute(gymnasium.Wrapper):
        def reset(self, **options: Any) -> Any:
            return first, {}

    with pytest.raises(BrokenEnvError, match=reason):
        Driver(lambda: Mute(gymnasium.make("Pendulum-v1")), 3, [1], [0])


def test_not_to_be_made_is_to_fail() -> None:
    """Made anew, an environment cannot be made nine times, and once more; then not at all."""
    left = 0

    def make_env() -> gymnasium.Env:
        nonlocal left
        left -= 1
        if left >= 0:
            raise RuntimeError("no\nlicence")
        return Failing(crash)

    left = 9
    driver = Driver(make_env, 3, [1], [0])
    left = 9
    rollout = driver.play(POLICY, 20, 0)
    assert open_episode(rollout) == [[1]]
    # Each time that it could not be made, and the step.
    assert rollout.failures.sum(0).tolist() == [[9 + 1 + 9]]
    assert len(rollout.reasons) == 19
    left = 10
    with pytest.raises(BrokenEnvError, match="failed 10 times in a row: RuntimeError: no licence"):
        driver.play(POLICY, 20, 0)
    left = 10
    with pytest.raises(BrokenEnvError, match="no licence"):
        Driver(make_env, 3, [1], [0])


@pytest.mark.parametrize("where", ["make", "reset", "step"])
def test_a_vectorised_form_that_always_fails_is_given_up(where: str) -> None:
    class Own(Vectorised):
        def vector(self, count: int) -> gymnasium.vector.VectorEnv:
            if where == "make":
                raise RuntimeError("no licence")
            vector = gymnasium.vector.SyncVectorEnv([partial(gymnasium.make, "Pendulum-v1")] * count)
            setattr(vector, where, lambda *args, **options: crash())
            return vector

    with pytest.raises(BrokenEnvError, match="the environment failed 10 times in a row: RuntimeError: "):
        Driver(Own(), 3, [1], [0]).play(POLICY, 5, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "shape"])
def test_a_vectorised_form_that_fails_is_made_anew(way: str) -> None:
    """Of this member alone, all of whose copies begin new episodes; the other one plays as it would alone."""
    how, reason = WAYS[way]
    left = 0

    class Form(gymnasium.vector.VectorWrapper):
        def step(self, actions: Any) -> Any:
            nonlocal left
            obs, rewards, *others = self.env.step(actions)
            left -= 1
            if left == 0:
                wrong = how()
                obs[1] = wrong[0]
                if len(wrong) > 1:
                    rewards = wrong[1] if np.ndim(wrong[1]) else np.full(3, wrong[1])
            return obs, rewards, *others

    class Own(Vectorised):
        def vector(self, count: int) -> gymnasium.vector.VectorEnv:
            return Form(
                gymnasium.vector.SyncVectorEnv([partial(gymnasium.make, "Pendulum-v1", max_episode_steps=30)] * 3)
            )

    alone = Driver(Own(), 3, [2], [0, 1, 2]).play(POLICY, 100, 0)  # type: ignore[arg-type]
    driver = Driver(Own(), 3, [1, 2], [0, 1, 2])  # type: ignore[arg-type]
    # The members step by turns: the first one at its 13th step.
    left = 25
    first = driver.play(POLICY, 10, 0)
    assert not broken(first).any()
    assert first.reasons == []
    second = driver.play(POLICY, 90, 0)
    expected = np.zeros((90, 2, 3), bool)
    expected[2, 0] = True
    begins = np.diff(second.episode, axis=0, prepend=0) > 0
    begins[1:] &= ~second.done[:-1]
    np.testing.assert_array_equal(begins, expected)
    np.testing.assert_array_equal(follows(second), ~(expected[1:] | second.done[:-1]))
    assert np.flatnonzero(second.truncated[:, 0, 0]).tolist() == [31, 61]
    assert all(np.isfinite(part).all() for part in (second.obs, second.next_obs, second.reward))
    assert second.failures.sum(0).tolist() == [[1, 0, 0], [0, 0, 0]]
    assert open_episode(second) == [[3, 3, 3], [3, 3, 3]]
    assert reason in second.reasons[0][1]
    np.testing.assert_array_equal(first.obs[:, 1], alone.obs[:10, 0])


def test_an_episode_is_played_again() -> None:
    make_env = partial(gymnasium.make, "Pendulum-v1")
    first, second = Driver(make_env, 3, [1, 2], [3]), Driver(make_env, 3, [1, 2], [3])
    rollout = first.play(POLICY, 230, 0)
    assert rollout.truncated.sum() == 2
    where = second.load(np.array([1, 1]), list(rollout.action[200:, :, 0].swapaxes(0, 1)))
    np.testing.assert_array_equal(where, first.obs)
    for mine, theirs in zip(
        vars(first.play(POLICY, 9, 1)).values(), vars(second.play(POLICY, 9, 1)).values(), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("clips", "played"), [(True, 2.0), (False, 7.0)])
@pytest.mark.parametrize("vectorised", [False, True])
def test_actions_are_kept_as_given_and_played_within_bounds(vectorised: bool, clips: bool, played: float) -> None:
    """Where it collects and where it is evaluated."""
    seen = []

    class Remembering(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            seen.append(action.item())
            return self.env.step(action)

    class Own:
        clip_actions, vectorized = clips, vectorised

        def __call__(self) -> gymnasium.Env:
            return Remembering(gymnasium.make("Pendulum-v1"))

        def vector(self, count: int) -> gymnasium.vector.VectorEnv:
            return gymnasium.vector.SyncVectorEnv([self] * count)

    class Bold:
        noise = 1

        def __call__(self, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
            return np.full((*obs.shape[:-1], 1), 7.0, np.float32)

    assert Driver(Own(), 3, [1], [0]).play(Bold(), 1, 0).action.item() == 7.0
    assert seen == [played]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_reward_is_one_number_in_whatever_shape(shape: tuple[int, ...]) -> None:
    """Where it collects, here and in the task's own vectorised form, is evaluated, and plays whole episodes."""

    class Shaped(gymnasium.Wrapper):
        def step(self, action: Any) -> Any:
            obs, _, terminated, truncated, info = self.env.step(action)
            return obs, np.full(shape, -0.5), terminated, truncated, info

    class Form(gymnasium.vector.VectorWrapper):
        def step(self, actions: Any) -> Any:
            obs, rewards, *others = self.env.step(actions)
            return obs, np.full((len(rewards), *shape), -0.5), *others

    class Own:
        vectorized = False

        def __call__(self) -> gymnasium.Env:
            return Shaped(gymnasium.make("Pendulum-v1"))

        def vector(self, count: int) -> gymnasium.vector.VectorEnv:
            return Form(gymnasium.vector.SyncVectorEnv([partial(gymnasium.make, "Pendulum-v1")] * count))

    make_env = Own()
    played = play(InProcess(make_env, 3), lambda obs, rng: np.zeros(1, np.float32), 0, np.random.default_rng())
    for make_env.vectorized in (False, True):
        driver = Driver(make_env, 3, [1], [0, 1])
        np.testing.assert_array_equal(driver.play(POLICY, 3, 0).reward, np.full((3, 1, 2), -0.5))
    np.testing.assert_array_equal(played["reward"], np.full(200, -0.5))


@pytest.mark.parametrize(("low", "high"), [((-1.0,), (np.inf,)), ((5.0,), (np.inf,)), ((-np.inf,), (-3.0,))])
def test_random_actions_keep_to_the_only_bound(low: tuple[float], high: tuple[float]) -> None:
    policy = Uniform(Spec(3, 1, None, low, high))
    actions = policy(np.zeros(()), np.random.default_rng(0).standard_normal((100, policy.noise)))
    assert ((actions >= low) & (actions <= high)).all()
    assert 1.5 < np.ptp(actions) < 2


def test_a_member_of_a_vectorised_form_plays_as_it_would_alone() -> None:
    """One whose episodes are short does not make another one, of long ones, run ahead of what it has handed on."""

    class Balancing:
        """The last member alone, or there would be no difference."""

        noise = 1

        def __call__(self, obs: np.ndarray, noise: np.ndarray) -> np.ndarray:
            action = (obs @ np.array([0.1, 0.3, 1.5, 0.8], np.float32) > 0).astype(np.int64)
            action[:-1] = 0
            return action

    make_env: Any = gym(None, None, "CartPole-v1", vectorized=True)
    both, alone = Driver(make_env, 4, [1, 2], [0, 1]), Driver(make_env, 4, [2], [0, 1])
    for number in range(8):
        mine, own = both.play(Balancing(), 50, number), alone.play(Balancing(), 50, number)
        np.testing.assert_array_equal(mine.obs[:, 1], own.obs[:, 0])
        np.testing.assert_array_equal(mine.reward[:, 1], own.reward[:, 0])
        np.testing.assert_array_equal(both.obs[2:], alone.obs)
    assert both.episode[:2].min() > 20
    assert len(both.steps) < 20


@pytest.mark.parametrize("numbers", [[0], [0, 1, 2]])
def test_a_vectorised_form_of_any_size_loses_nothing(numbers: list[int]) -> None:
    make_env = gym(None, None, "CartPole-v1", vectorized=True)
    driver = Driver(make_env, 4, [1, 2], numbers)
    for number in range(3):
        rollout = driver.play(Uniform(Spec(4, num_actions=2)), 80, number)
        assert rollout.done.any((0, 2)).all()
        np.testing.assert_array_equal(follows(rollout), ~rollout.done[:-1])
        np.testing.assert_array_equal(np.diff(rollout.episode, axis=0), rollout.done[:-1])
