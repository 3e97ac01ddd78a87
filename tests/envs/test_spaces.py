"""Observations lie in one order wherever they come from, actions are the environment's, bounds what they mean."""

import dataclasses
import json
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from awr_exp import layout
from awr_exp.envs.build import task
from awr_exp.envs.episode import play
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.make import gym
from awr_exp.envs.rollout import Driver
from awr_exp.envs.spaces import canonical, entries_of, spec_of
from awr_exp.errors import UserError
from awr_exp.networks.numpy_policy import Uniform
from awr_exp.types import Spec

PARTS: dict[str, spaces.Space] = {
    "wanted": spaces.Box(-1, 1, (2,), np.float32),
    "level": spaces.Discrete(3, start=1),
    "inner": spaces.Tuple((spaces.Dict(z=spaces.Box(0, 9, ()), a=spaces.MultiBinary(2)), spaces.Box(0, 1, (2, 2)))),
    "dials": spaces.MultiDiscrete([2, 3], start=[5, 0]),
}
ORDERS = {
    "plain": lambda parts: spaces.Dict(dict(parts)),
    "keywords": lambda parts: spaces.Dict(**parts),
    "pairs": lambda parts: spaces.Dict(list(parts.items())),
    "ordered": lambda parts: spaces.Dict(OrderedDict(parts)),
    "reversed": lambda parts: spaces.Dict(list(reversed(parts.items()))),
    "sorted": lambda parts: canonical(spaces.Dict(parts)),
    "unsorted": lambda parts: spaces.Dict(dict(parts), sort_keys=False),
}
ACTION = spaces.Discrete(3, start=4)
OBSERVATION = {
    "wanted": np.array([0.25, -0.5], np.float32),
    "level": np.int64(3),
    "inner": ({"z": np.float32(7), "a": np.array([1, 0], np.int8)}, np.array([[0.1, 0.2], [0.3, 0.4]], np.float32)),
    "dials": np.array([6, 2]),
}
COLUMNS = [0, 1, 0, 0, 1, 1, 0, 7, 0.1, 0.2, 0.3, 0.4, 0, 0, 1, 0.25, -0.5]
"""dials, inner (a, z, the box), level, wanted."""


class Parts(gymnasium.Env):
    """Shows the same again and again; its rewards are the actions as it got them."""

    action_space = ACTION

    def __init__(self, order: str = "plain") -> None:
        self.observation_space = ORDERS[order](PARTS)

    def reset(self, **options: Any) -> Any:
        self.count = 0
        return OBSERVATION, {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.count += 1
        return OBSERVATION, float(action), False, self.count == 4, {}


def vector(num_envs: int, order: str = "plain") -> gymnasium.vector.VectorEnv:
    return gymnasium.vector.SyncVectorEnv([partial(Parts, order)] * num_envs)


gymnasium.register("Parts-v0", f"{__name__}:Parts", vector_entry_point=f"{__name__}:vector")


@pytest.mark.parametrize("order", ORDERS)
def test_every_door_gives_one_observation_in_one_order(order: str) -> None:
    make_env, vectorized = (gym(None, None, "Parts-v0", {"order": order}, vectorized=own) for own in (False, True))
    spec = task(make_env)
    assert (spec.num_actions, spec.action_start) == (3, 4)
    names = layout.column_names(spec.observation, spec.obs_dim)
    assert names[5:9] == ["inner/0/a[0]", "inner/0/a[1]", "inner/0/z", "inner/1[0]"]
    columns = np.array(COLUMNS, np.float32)
    np.testing.assert_array_equal(spec.flatten(OBSERVATION), columns)
    uniform = Uniform(spec)
    for made in (make_env, vectorized):
        rollout = Driver(made, spec.obs_dim, [0], [0, 1]).play(uniform, 6, 0)
        np.testing.assert_array_equal(rollout.obs, np.broadcast_to(columns, rollout.obs.shape))
        np.testing.assert_array_equal(rollout.reward, rollout.action + 4)
    # What comes of a Dict in the order that a file keeps is the same.
    kept = entries_of("", canonical(ORDERS[order](PARTS)))
    assert kept == spec.observation
    np.testing.assert_array_equal(spaces.flatten(canonical(ORDERS[order](PARTS)), OBSERVATION), columns)


def test_columns_become_the_parts_that_they_came_from() -> None:
    entries = entries_of("", spaces.Dict(PARTS))
    batch = np.array([COLUMNS, COLUMNS], np.float32)
    parts = layout.unflatten(entries, batch)
    assert list(parts) == sorted(PARTS)
    assert (parts["level"].dtype, parts["level"].tolist()) == (np.int64, [3, 3])
    assert parts["inner"][0]["a"].dtype == np.int8
    assert parts["dials"].tolist() == [[6, 2], [6, 2]]
    # The parts' first axes may be a batch.
    np.testing.assert_array_equal(layout.flatten(entries, parts), batch)


def test_a_spec_comes_back_from_a_file() -> None:
    spec = spec_of("", spaces.Dict(PARTS), spaces.Box(-1, np.inf, (2,)))
    assert Spec.from_json(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec
    assert spec.observation[0].starts == (5, 0)
    stacked = spec.stacked(3)
    again = Spec.from_json(json.loads(json.dumps(dataclasses.asdict(stacked))))
    assert (again, again.history) == (stacked, 3)
    assert again.single == spec
    assert Spec(4, num_actions=2).stacked(3).single.entries == Spec(4, num_actions=2).entries
    for wrong in (2, 0, -3, 1.0, "3", None):
        with pytest.raises(ValueError, match="another number of observations at once than their parts"):
            Spec.from_json(
                dataclasses.asdict(stacked)
                | {"history": wrong, "observation": [*map(dataclasses.asdict, stacked.observation)]}
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 4}, "level is none of its 3 choices that begin at 1"),
        ({"level": 1.5}, "level is none of its 3 choices"),
        ({"wanted": np.zeros(3)}, r"wanted has the shape \(3,\), its space \(2,\)"),
        ({"inner": ({"z": 0, "a": [0, 0]},)}, "it has no inner/1"),
        ({"inner": ({"a": [0, 0]}, np.zeros((2, 2)))}, "it has no inner/0/z"),
        ({"wanted": np.zeros((2, 2))}, "its entries are of batches of different shapes"),
    ],
)
def test_an_observation_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layout.flatten(entries_of("", spaces.Dict(PARTS)), OBSERVATION | change)


def test_a_part_without_numbers_is_named() -> None:
    with pytest.raises(
        UserError, match="data set 'x': say/what of its observations is a Text, which has no flat form; use one of Box"
    ):
        entries_of("data set 'x'", spaces.Dict(say=spaces.Dict(what=spaces.Text(3))))
    with pytest.raises(UserError, match="which holds nothing"):
        entries_of("data set 'x'", spaces.Dict())
    for nothing in (spaces.Box(0, 1, (0,)), spaces.Dict(x=spaces.Box(0, 1, (2, 0)))):
        with pytest.raises(UserError, match="which holds nothing"):
            spec_of("environment 'x'", nothing, spaces.Discrete(2))


class Plain(gymnasium.Env):
    action_space = ACTION

    def __init__(self, width: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (width,))


def test_observations_that_no_machine_holds_are_refused_at_once() -> None:
    env = Plain(1)
    env.observation_space = spaces.Discrete(10**12)
    with pytest.raises(UserError, match="its observations are 1000000000000 numbers, which take 64000 GB of memory"):
        task(lambda: env)


def test_data_of_other_parts_or_of_an_unknown_order_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    source: Any = SimpleNamespace(
        id="test/data-v0", env_spec=None, eval_env_spec=None, observation_space=None, history=1
    )
    own = task(gym(None, None, "Parts-v0"))
    gym(source, own, "Parts-v0", {"order": "reversed"})
    vector = dataclasses.replace(own, observation=())
    # As gymnasium flattens it, too.
    gym(source, vector, "Parts-v0", {"order": "sorted"})
    with pytest.raises(UserError, match="the data have flat observations, the environment a Dict of keys in another"):
        gym(source, vector, "Parts-v0", {"order": "reversed"})
    gymnasium.register("Flattened-v0", lambda order: FlattenObservation(Parts(order)))
    gym(source, own, "Flattened-v0", {"order": "sorted"})
    with pytest.raises(UserError, match="the data have observations in parts, the environment flat ones of keys in"):
        gym(source, own, "Flattened-v0", {"order": "reversed"})
    assert not caplog.text
    gymnasium.register("Plain-v0", lambda: Plain(own.obs_dim))
    gym(source, own, "Plain-v0")
    assert "environment 'Plain-v0' flat ones: if they are in another order, its scores mean nothing" in caplog.text
    with pytest.raises(UserError, match="the data have actions that begin at 0, the environment ones that begin at 4"):
        gym(source, dataclasses.replace(own, action_start=0), "Parts-v0")
    first, *others = own.observation
    renamed = (dataclasses.replace(first, path=("buttons",)), *others)
    with pytest.raises(UserError, match=r"the data have observations of buttons .*, the environment of dials"):
        gym(source, dataclasses.replace(own, observation=renamed), "Parts-v0")


LARGEST = float(np.finfo(np.float32).max)


@pytest.mark.parametrize(
    ("low", "high", "dtype", "bounds"),
    [
        (-LARGEST, LARGEST, np.float32, (-np.inf, np.inf)),
        (-LARGEST, LARGEST, np.float64, (-np.inf, np.inf)),
        (-1e300, 1e300, np.float64, (-np.inf, np.inf)),
        (-65504, 65504, np.float16, (-np.inf, np.inf)),
        (-65504, 65504, np.float32, (-65504, 65504)),
        (0, LARGEST, np.float32, (0, np.inf)),
        (-LARGEST, 1, np.float32, (-np.inf, 1)),
    ],
)
def test_bounds_that_no_action_reaches_are_none(low: float, high: float, dtype: Any, bounds: tuple) -> None:
    spec = spec_of("", spaces.Box(0, 1, (2,)), spaces.Box(low, high, (1,), dtype))
    assert (spec.action_low, spec.action_high) == ((bounds[0],), (bounds[1],))


def test_equal_bounds_of_an_entry_are_taken_and_reversed_ones_named() -> None:
    box = spaces.Box(np.array([-1, 0.5], np.float32), np.array([1, 0.5], np.float32))
    assert spec_of("", spaces.Box(0, 1, (2,)), box).action_low == (-1, 0.5)
    box.low[0], box.high[0] = 1, -1
    with pytest.raises(UserError, match="entry 0 of its actions is from 1 to -1: swap them"):
        spec_of("data set 'x'", spaces.Box(0, 1, (2,)), box)


class Reusing(gymnasium.Env):
    """Scales the action that it gets in place, and always returns the same arrays."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        self.seen, self.reward = np.zeros(1, np.float32), np.zeros(1)
        self.truncated = np.zeros((), np.bool_)

    def reset(self, **options: Any) -> Any:
        self.count = 0
        self.seen[:], self.truncated[...] = 0, False
        return self.seen, {}

    def step(self, action: Any) -> Any:
        self.count += 1
        self.seen[:], self.reward[:], self.truncated[...] = self.count, action[0], self.count == 5
        action *= 10
        return self.seen, self.reward, False, self.truncated, {}


class ReusingVector(gymnasium.vector.VectorEnv):
    """As `Reusing`, in a vectorised form, with one buffer each for all of its calls."""

    metadata: ClassVar = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = Reusing.observation_space, Reusing.action_space
        self.observation_space = spaces.Box(-np.inf, np.inf, (num_envs, 1), np.float32)
        self.action_space = spaces.Box(-1, 1, (num_envs, 1), np.float32)
        self.seen, self.reward = np.zeros((num_envs, 1), np.float32), np.zeros(num_envs)
        self.ends = np.zeros((2, num_envs), np.bool_)

    def reset(self, **options: Any) -> Any:
        self.seen[:] = 0
        return self.seen, {}

    def step(self, action: Any) -> Any:
        self.seen += 1
        self.reward[:] = action[:, 0]
        action *= 10
        return self.seen, self.reward, *self.ends, {}


gymnasium.register("Reusing-v0", f"{__name__}:Reusing", vector_entry_point=f"{__name__}:ReusingVector")


class Buffered(Uniform):
    """Gives its actions in one array of its own, and keeps a copy of what it gave."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.given: list[np.ndarray] = []

    def __call__(self, obs: Any, noise: Any) -> Any:
        action = super().__call__(obs, noise)
        if not self.given:
            self.buffer = action
        self.buffer[...] = action
        self.given.append(action.copy())
        return self.buffer


@pytest.mark.parametrize("clip_actions", [True, False])
@pytest.mark.parametrize("vectorized", [False, True])
def test_what_is_kept_is_what_was_given_whatever_is_done_to_it(vectorized: bool, clip_actions: bool) -> None:
    make_env = gym(None, None, "Reusing-v0", vectorized=vectorized, clip_actions=clip_actions)
    policy = Buffered(task(make_env))
    rollout = Driver(make_env, 1, [0], [0, 1]).play(policy, 4, 0)
    np.testing.assert_array_equal(rollout.action, policy.given)
    np.testing.assert_allclose(rollout.reward, rollout.action[..., 0])
    np.testing.assert_array_equal(rollout.obs[:, 0, 0, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(rollout.next_obs[:, 0, 0, 0], [1, 2, 3, 4])


def test_episodes_keep_what_was_given_too() -> None:
    buffer = np.zeros(1, np.float32)

    def act(obs: Any, rng: np.random.Generator) -> Any:
        buffer[:] = 0.1 * (obs + 1)
        return buffer

    played = play(InProcess(Reusing, 1), act, 0, np.random.default_rng(0))
    np.testing.assert_allclose(played["action"][:, 0], [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(played["reward"], [0.1, 0.2, 0.3, 0.4, 0.5])
    np.testing.assert_array_equal(played["obs"][:, 0], range(5))
    np.testing.assert_array_equal(played["truncated"], [False] * 4 + [True])
    fleet = InProcess(Reusing, 1)
    fleet.reset(np.arange(1), np.arange(1))
    given = np.full((1, 1), 0.5, np.float32)
    fleet.step(np.arange(1), given)
    assert given.tolist() == [[0.5]]


class Counts(Parts):
    """Shows a vector of whole numbers."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 300, (2,), np.int16)

    def reset(self, **options: Any) -> Any:
        return np.array([7, 300], np.int16), super().reset()[1]

    def step(self, action: Any) -> Any:
        return np.array([7, 300], np.int16), *super().step(action)[1:]


gymnasium.register("Counts-v0", f"{__name__}:Counts")


def recorded(make_env: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """An episode of four steps, as it is read here and by Minari."""
    import minari

    from awr_exp.data import export
    from awr_exp.data.minari import load
    from awr_exp.data.recording import Recording

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env, spec = make_env(), task(make_env)
    recording = Recording(tmp_path / "steps", spec, 1)
    played = play(InProcess(make_env, spec.obs_dim), lambda obs, rng: np.int64(2), 0, np.random.default_rng(0))
    mark = np.arange(len(played["reward"])) == 0
    recording.add(**{name: part[:, None] for name, part in (played | {"mark": mark}).items()})
    assert export.create("test/own-v0", recording.episodes(), spec, env, None)
    data = load("test/own-v0")
    assert data.spec == spec
    return data, next(iter(minari.load_dataset("test/own-v0").iterate_episodes()))


def test_a_recorded_dict_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, episode = recorded(gym(None, None, "Parts-v0", {"order": "reversed"}), tmp_path, monkeypatch)
    np.testing.assert_array_equal(data.observations(), np.array([COLUMNS] * 5, np.float32))
    assert episode.actions.tolist() == [6] * 4
    assert episode.observations["level"].tolist() == [3] * 5


def test_recorded_whole_numbers_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, episode = recorded(gym(None, None, "Counts-v0"), tmp_path, monkeypatch)
    assert Counts().observation_space.contains(episode.observations[-1])
