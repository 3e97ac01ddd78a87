"""The environment that judges is the one that a data set's numbers mean, as far as it can be had without its code."""

import json
import logging
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces, wrappers
from minari.data_collector import EpisodeBuffer

from awr_exp.data.minari import load
from awr_exp.envs.build import collecting
from awr_exp.envs.make import from_dataset, gym
from awr_exp.envs.source import EnvSource, parse
from awr_exp.errors import UserError

ID = "test/recorded-v0"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def record(env: gymnasium.Env, steps: int = 3, **facts: Any) -> Any:
    """The info and spec of a data set of `steps` random steps in env, as Minari writes it."""
    obs, _ = env.reset(seed=0)
    env.action_space.seed(0)
    rows = [obs]
    actions = [env.action_space.sample() for _ in range(steps)]
    rewards = []
    for action in actions:
        obs, reward, *_ = env.step(action)
        rows.append(obs)
        rewards.append(float(reward))
    stacked = {key: np.stack([row[key] for row in rows]) for key in obs} if isinstance(obs, dict) else np.stack(rows)
    buffer = EpisodeBuffer(
        observations=stacked, actions=np.stack(actions), rewards=rewards, terminations=[False] * steps,
        truncations=[False] * steps, infos={},
    )  # fmt: skip
    minari.create_dataset_from_buffers(
        ID, [buffer], env=env, author="t", author_email="t@example.invalid", code_permalink="none",
        algorithm_name="none", description="none", **facts,
    )  # fmt: skip
    data = load(ID)
    return data.info, data.spec


def change_spec(root: Path, field: str = "env_spec", **facts: Any) -> Any:
    """The info and spec after a change of the stored environment."""
    path = root / ID / "data" / "metadata.json"
    content = json.loads(path.read_text())
    content[field] = json.dumps(json.loads(content["env_spec"]) | facts)
    path.write_text(json.dumps(content))
    data = load(ID)
    return data.info, data.spec


def pendulum(**options: Any) -> gymnasium.Env:
    return gymnasium.make("Pendulum-v1", **options)


class Halved(gymnasium.ActionWrapper):
    """An own wrapper, which gymnasium has no arguments of."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.action_space = spaces.Box(-4.0, 4.0, (1,))

    def action(self, action: Any) -> Any:
        return action / 2


RECORDED: dict[str, Any] = {
    "none": pendulum,
    "actions": lambda: wrappers.RescaleAction(pendulum(), -1.0, 1.0),
    "time": lambda: wrappers.TimeAwareObservation(pendulum(max_episode_steps=7)),
    "several": lambda: wrappers.TimeAwareObservation(
        wrappers.RescaleAction(wrappers.ClipReward(pendulum(), -1.0, 0.0), -1.0, 3.0)
    ),
    "twice": lambda: wrappers.RescaleAction(wrappers.RescaleAction(pendulum(), -1.0, 1.0), -5.0, 5.0),
    "watched": lambda: wrappers.RecordEpisodeStatistics(wrappers.RescaleAction(pendulum(), -1.0, 1.0)),
    "kwargs": lambda: pendulum(g=2.0),
    "stack": lambda: wrappers.FrameStackObservation(pendulum(), 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", RECORDED)
def test_it_is_what_minari_recovers(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    info, spec = record(RECORDED[kind]())
    ours, theirs = from_dataset(info, spec)(), minari.load_dataset(ID).recover_environment()
    assert ours.action_space == theirs.action_space
    assert ours.spec is not None
    assert theirs.spec is not None
    assert ours.spec.max_episode_steps == theirs.spec.max_episode_steps
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    obs, _ = theirs.reset(seed=3)
    np.testing.assert_allclose(ours.reset(seed=3)[0], obs, rtol=1e-6)
    action = theirs.action_space.high
    result, expected = ours.step(action), theirs.step(action)
    np.testing.assert_allclose(result[0], expected[0], rtol=1e-6)
    assert result[1] == expected[1]


def test_lists_become_the_tuples_that_they_were() -> None:
    """Where Minari gives up."""
    info, spec = record(wrappers.ReshapeObservation(pendulum(), (3, 1)))
    assert from_dataset(info, spec)().observation_space.shape == (3, 1)
    with pytest.raises(TypeError, match="requires shape to be a tuple"):
        minari.load_dataset(ID).recover_environment()


def test_wrappers_of_others_are_named_and_the_bounds_that_they_changed_refused() -> None:
    info, spec = record(Halved(pendulum()))
    with pytest.raises(UserError) as error:
        from_dataset(info, spec)
    said = str(error.value)
    assert "has actions from -4 to 4, environment 'Pendulum-v1' from -2 to 2" in said
    assert "it was recorded through Halved, which is not there; choose env=gym env.id=... or env=none" in said
    assert "env=from_dataset" not in said


def test_a_wrapper_that_changes_no_bounds_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(pendulum())
    info, spec = change_spec(root, additional_wrappers=[{"name": "Own", "entry_point": "os:abort", "kwargs": {}}])
    assert from_dataset(info, spec)().action_space == pendulum().action_space
    assert "was recorded through Own, which environment 'Pendulum-v1' has not: if scores depend on that" in caplog.text


def test_a_chosen_environment_is_told_of_the_wrappers_too(caplog: pytest.LogCaptureFixture) -> None:
    info, spec = record(wrappers.ClipReward(pendulum(), -1.0, 1.0))
    gym(info, spec, "Pendulum-v1")
    assert "was recorded through ClipReward, which environment 'Pendulum-v1' has not: env=from_dataset" in caplog.text


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"g": 2.0}, None),
        ({"g": 2.0, "render_mode": "rgb_array", "max_episode_steps": 50}, None),
        ({}, "evaluating in Pendulum-v1 (200 steps), though data set 'test/recorded-v0' is of Pendulum-v1 (50 steps, "),
        ({"g": 2.0, "max_episode_steps": -1}, "evaluating in Pendulum-v1 (no time limit, g=2.0), though"),
    ],
)
def test_another_environment_than_that_of_the_data_is_said(
    kwargs: dict[str, Any], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    info, spec = record(pendulum(g=2.0, max_episode_steps=50))
    gym(info, spec, "Pendulum-v1", {"max_episode_steps": 50} | kwargs if said is None else kwargs)
    assert ("evaluating in" in caplog.text) == (said is not None)
    assert (said or "") in caplog.text


@pytest.mark.parametrize("field", ["terminations", "truncations"])
def test_episodes_that_terminate_at_the_time_limit_are_named(field: str, caplog: pytest.LogCaptureFixture) -> None:
    env, buffers = pendulum(max_episode_steps=4), []
    for seed in range(4):
        rows = [env.reset(seed=seed)[0], *(env.step(np.zeros(1, np.float32))[0] for _ in range(4))]
        ends = {"terminations": [False] * 4, "truncations": [False] * 4} | {field: [False] * 3 + [True]}
        actions = np.zeros((4, 1), np.float32)
        buffers.append(EpisodeBuffer(observations=np.stack(rows), actions=actions, rewards=[0.0] * 4, infos={}, **ends))
    minari.create_dataset_from_buffers(
        ID, buffers, env=env, author="t", author_email="t@example.invalid", code_permalink="none",
        algorithm_name="none", description="none",
    )  # fmt: skip
    load(ID)
    said = "4 of its episodes terminate after 4 steps, the time limit of its environment" in caplog.text
    assert said == (field == "terminations")


def test_bounds_that_differ_are_named(caplog: pytest.LogCaptureFixture) -> None:
    info, spec = record(wrappers.RescaleAction(pendulum(), -1.0, 1.0))
    with pytest.raises(UserError, match=r"actions from -1 to 1, environment 'Pendulum-v1' from -2 to 2.*from_dataset"):
        gym(info, spec, "Pendulum-v1")


@pytest.mark.parametrize("bound", [np.inf, np.finfo(np.float32).max])
def test_actions_without_bounds_are_clipped_with_a_word(bound: float, caplog: pytest.LogCaptureFixture) -> None:
    space = spaces.Box(-bound, bound, (1,), np.float32)
    info, spec = record(pendulum(), action_space=space)
    gym(info, spec, "Pendulum-v1", clip_actions=False)
    from_dataset(info, spec)
    assert not caplog.text
    gym(info, spec, "Pendulum-v1")
    assert "actions from -inf to inf, environment 'Pendulum-v1' from -2 to 2: it gets them clipped" in caplog.text


def test_scaled_observations_are_named_by_their_entry(caplog: pytest.LogCaptureFixture) -> None:
    low = np.array([-1, -1, -1], np.float32)
    info, spec = record(pendulum(), observation_space=spaces.Box(low, -low))
    from_dataset(info, spec)
    assert "has observations from -1 to 1 in entry 2, environment 'Pendulum-v1' from -8 to 8: if they" in caplog.text
    assert len(caplog.records) == 1


def test_a_large_bound_is_none(caplog: pytest.LogCaptureFixture) -> None:
    env = gymnasium.make("CartPole-v1")
    space: Any = env.observation_space
    wide = np.where(space.high > 1e30, np.finfo(np.float32).max, space.high).astype(np.float32)
    info, spec = record(env, observation_space=spaces.Box(-wide, wide))
    from_dataset(info, spec)
    assert not caplog.text


def test_advice_is_what_has_not_been_done(root: Path) -> None:
    record(pendulum())
    info, spec = change_spec(root, id="CartPole-v1")
    with pytest.raises(
        UserError,
        match=r"the data have 3 observation entries, the environment 4; choose env=gym env\.id=\.\.\. or env=none$",
    ):
        from_dataset(info, spec)
    with pytest.raises(UserError, match=r"; choose env=from_dataset or env=none$"):
        gym(info, spec, "CartPole-v1")
    path = root / ID / "data" / "metadata.json"
    content = json.loads(path.read_text())
    del content["env_spec"]
    path.write_text(json.dumps(content))
    data = load(ID)
    info_: Any = data.info
    with pytest.raises(UserError, match=r"; choose another env\.id or env=none$"):
        gym(info_, data.spec, "CartPole-v1")


def test_it_is_evaluated_where_it_is_to_be_and_collects_where_it_was(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    info, spec = record(pendulum(), eval_env=wrappers.ClipReward(pendulum(g=2.0, max_episode_steps=50), -1.0, 0.0))
    make = from_dataset(info, spec)
    judge, place = make(), collecting(make)()
    assert judge.unwrapped.g == 2.0  # type: ignore[attr-defined]
    assert place.unwrapped.g == 10.0  # type: ignore[attr-defined]
    assert [env.spec and env.spec.max_episode_steps for env in (judge, place)] == [50, 200]
    judge.reset(seed=0)
    assert float(judge.step(np.array([2.0], np.float32))[1]) >= -1
    assert (
        "its eval_env_spec: Pendulum-v1 (50 steps, g=2.0, ClipReward); it was collected in its env_spec" in caplog.text
    )


def test_one_that_is_the_same_is_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    info, spec = record(pendulum(), eval_env=pendulum())
    make = from_dataset(info, spec)
    assert collecting(make) is make
    assert not caplog.text


def test_only_what_collects_needs_the_place_of_the_data(root: Path) -> None:
    record(pendulum(), eval_env=pendulum())
    info, spec = change_spec(root, id="Endless-v0", entry_point="mazes.own:Endless", kwargs={"size": 3})
    make = from_dataset(info, spec)
    make()
    advice = r"'Endless-v0', which is not registered .*env=gym env\.id=mazes:Endless-v0 \+env\.kwargs\.size=3 .*=200 if"
    with pytest.raises(UserError, match=advice):
        collecting(make)


@pytest.mark.parametrize("mode", ["human", "rgb_array", "rgb_array_list", "ansi", "window"])
def test_nothing_is_shown(mode: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    record(pendulum())
    shown = {"name": "HumanRendering", "entry_point": "gymnasium.wrappers.rendering:HumanRendering", "kwargs": {}}
    video = {"name": "RecordVideo", "entry_point": "gymnasium.wrappers.rendering:RecordVideo"}
    facts = {"kwargs": {"render_mode": mode}, "additional_wrappers": [shown, video | {"kwargs": {"video_folder": "v"}}]}
    info, spec = change_spec(root, **facts)
    env = from_dataset(info, spec)()
    assert env.render_mode is None
    assert not (root / "v").exists()


OLD = {
    "gymnasium.wrappers.rescale_action:RescaleAction": {"min_action": -1.0, "max_action": 1.0},
    "gymnasium.experimental.wrappers.lambda_action:RescaleActionV0": {"min_action": -1.0, "max_action": 1.0},
}


@pytest.mark.parametrize("code", OLD)
def test_what_older_versions_wrote_is_understood(code: str, root: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(wrappers.RescaleAction(pendulum(), -1.0, 1.0))
    old = {"name": code.partition(":")[2], "entry_point": code, "kwargs": OLD[code]}
    more = {"apply_api_compatibility": False, "autoreset": False, "order_enforce": True, "nondeterministic": False}
    info, spec = change_spec(root, additional_wrappers=[old], **more)
    assert from_dataset(info, spec)().action_space == spaces.Box(-1.0, 1.0, (1,))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_gymnasium_is_no_package_to_trust(root: Path) -> None:
    """Data of older versions: the name is not registered any more, and what is to be imported is already."""
    record(pendulum())
    info, spec = change_spec(root, id="LunarLander-v2")
    with pytest.raises(UserError, match=r"`LunarLander-v3` instead\.\): choose env=gym env\.id=\.\.\. or env=none$"):
        from_dataset(info, spec)


def test_a_spec_without_wrappers_and_limits_is_the_registered_one() -> None:
    assert parse('{"id": "Pendulum-v1"}') == EnvSource("Pendulum-v1", {})
    assert parse({"id": "Pendulum-v1", "kwargs": None, "max_episode_steps": None}).max_episode_steps == -1


def test_a_limit_that_was_lifted_is_not_put_back(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    info, spec = record(pendulum(max_episode_steps=-1))
    env = from_dataset(info, spec)()
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    assert "knows no limit of 200 steps in Pendulum-v1: nor does its evaluation" in caplog.text


def test_statistics_that_begin_anew_are_named(caplog: pytest.LogCaptureFixture) -> None:
    info, spec = record(wrappers.NormalizeObservation(pendulum()))
    from_dataset(info, spec)
    assert "was recorded through NormalizeObservation, whose statistics it does not hold" in caplog.text


def test_a_wrapper_that_cannot_be_made_is_named(root: Path) -> None:
    record(pendulum())
    bad = {"name": "RescaleAction", "entry_point": "gymnasium.wrappers.transform_action:RescaleAction"}
    info, spec = change_spec(root, additional_wrappers=[bad | {"kwargs": {"min_action": "low"}}])
    with pytest.raises(UserError, match="cannot be made: the wrapper RescaleAction cannot be put on"):
        from_dataset(info, spec)


CODE: list[dict[str, Any]] = [
    {"id": "os:X-v0"},
    {"id": "Pendulum-v1", "kwargs": {"g": "os:abort"}},
    {"id": "Pendulum-v1", "kwargs": {"options": {"inner": ["os:X-v0"]}}},
    {"id": "Ant-v5", "kwargs": {"xml_file": "/dev/stdin"}},
    {"id": "Ant-v5", "kwargs": {"xml_file": "~/ant.xml"}},
]


@pytest.mark.parametrize("facts", CODE)
def test_what_would_import_a_module_or_open_a_file_is_refused(facts: dict[str, Any], root: Path) -> None:
    record(pendulum())
    info, spec = change_spec(root, **facts)
    with pytest.raises(UserError, match="which would import a module or open a file: if you trust it, env=gym env"):
        from_dataset(info, spec)


def test_the_tasks_of_2019_are_those_alone(root: Path) -> None:
    """Their name goes into the id of another one."""
    record(pendulum())
    info, spec = change_spec(root, id="awr_exp.envs.mujoco_2019:Ant2019-v5", kwargs={"task": "no_such_module_"})
    with pytest.raises(UserError, match="task is 'no_such_module_': use one of Ant, "):
        from_dataset(info, spec)


MALFORMED = [
    "3", "[]", "{}", '{"id": 3}', '{"id": "a b"}', '{"id": "a\\nb"}', '{"id": "X-v0", "kwargs": [1]}',
    '{"id": "X-v0", "kwargs": {"a=b +trust": 1}}', '{"id": "X-v0", "additional_wrappers": {"a": 1}}',
    '{"id": "X-v0", "additional_wrappers": [3]}', '{"id": "X-v0", "additional_wrappers": [{"name": "A"}]}',
    '{"id": "X-v0", "max_episode_steps": true}', '{"id": "X-v0", "max_episode_steps": -5}',
    '{"id": "X-v0", "additional_wrappers": [{"name": "A\\u001b", "entry_point": "a:A", "kwargs": {}}]}', "nonsense",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text)


def test_a_wrapper_that_an_environment_is_registered_with_is_put_on_once() -> None:
    gymnasium.register(
        "Scaled-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=20,
        additional_wrappers=(wrappers.RescaleAction.wrapper_spec(min_action=-1.0, max_action=1.0),),
    )  # fmt: skip
    try:
        env = gymnasium.make("Scaled-v0")
        info, spec = record(wrappers.TimeAwareObservation(env))
        own = from_dataset(info, spec)()
        assert own.spec is not None
        assert [one.name for one in own.spec.additional_wrappers] == ["RescaleAction", "TimeAwareObservation"]
    finally:
        del gymnasium.registry["Scaled-v0"]
