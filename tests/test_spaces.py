"""Every space that gymnasium has is learnt from, as an observation and as an action, or is refused by name."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.serialization import serialize_space

import awr_exp
from awr_exp import results
from awr_exp.data.minari import load
from awr_exp.envs.make import gym
from tests.conftest import composed, refused, train
from tests.test_actions import stacked

NUMBER = spaces.Box(-1, 1, (1,), np.float32)
LEARNT: dict[str, spaces.Space] = {
    "Box": spaces.Box(-1, 1, (2, 2), np.float32),
    "Box of bytes": spaces.Box(0, 3, (3,), np.uint8),
    "Dict": spaces.Dict(b=spaces.Dict(y=NUMBER, x=NUMBER), a=spaces.Box(-2, 2, ())),
    "Dict of choices": spaces.Dict(b=spaces.MultiBinary(2), a=spaces.Discrete(3)),
    "Discrete": spaces.Discrete(3, start=-1),
    "MultiBinary": spaces.MultiBinary([2, 2]),
    "MultiDiscrete": spaces.MultiDiscrete([3, 2], start=[1, 0]),
    "Tuple": spaces.Tuple((spaces.Discrete(2), spaces.Tuple((spaces.MultiDiscrete([2, 3]),)))),
}
OBSERVED = LEARNT | {
    "Dict": spaces.Dict(b=NUMBER, a=spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 255, (6, 6, 3), np.uint8)))),
}
"""As an observation, numbers and choices may be mixed."""
REFUSED: dict[str, spaces.Space] = {
    "Graph": spaces.Graph(NUMBER, None),
    "OneOf": spaces.OneOf([spaces.Discrete(2), NUMBER]),
    "Sequence": spaces.Sequence(spaces.Discrete(2)),
    "Text": spaces.Text(3),
}
KINDS = {"observation": OBSERVED | REFUSED, "action": LEARNT | REFUSED}
SMALL = [
    "network.hidden=[8]", "trainer.compile=false", "trainer.batch_size=8", "trainer.eval_episodes=1", "trainer.envs=2",
    "trainer.workers=0", "trainer.env_steps=24", "trainer.eval_interval=24", "schedule=interleaved", "agent=iql",
    "schedule.learning_starts=10", "logger=jsonl",
]  # fmt: skip


class Shows(gymnasium.Env):
    """Shows what is drawn from a space, and takes actions of one."""

    def __init__(self, place: str, name: str) -> None:
        self.observation_space, self.action_space = NUMBER, spaces.Discrete(2)
        setattr(self, f"{place}_space", KINDS[place][name])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.count = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.count += 1
        return self.observation_space.sample(), float(self.np_random.normal()), False, self.count == 6, {}


gymnasium.register("Shows-v0", f"{__name__}:Shows")


def record(place: str, name: str) -> str:
    """A data set by Minari's own writer."""
    env, buffers = gymnasium.make("Shows-v0", place=place, name=name), []
    env.action_space.seed(0)
    for seed in range(4):
        seen, actions, rewards, late = [env.reset(seed=seed)[0]], [], [], False
        while not late:
            actions.append(env.action_space.sample())
            obs, reward, _, late, _ = env.step(actions[-1])
            seen.append(obs), rewards.append(reward)
        own = (stacked(space, each) for space, each in ((env.observation_space, seen), (env.action_space, actions)))
        buffers.append(EpisodeBuffer(None, None, None, *own, rewards, [False] * 6, [False] * 5 + [True], {}))
    # A run keeps the last data set of an id.
    id = f"test/{place}-{name.replace(' ', '-')}-v0"
    minari.create_dataset_from_buffers(id, buffers, env=env)
    return id


def test_the_examples_are_of_every_space_that_there_is() -> None:
    exported = {
        name
        for name, one in vars(spaces).items()
        if isinstance(one, type) and issubclass(one, spaces.Space) and one is not spaces.Space
    }
    for examples in KINDS.values():
        assert {name.partition(" ")[0] for name in examples} == exported
        assert all(type(one).__name__ == name.partition(" ")[0] for name, one in examples.items())


@pytest.mark.parametrize(
    ("place", "name"),
    [
        pytest.param(place, name, marks=pytest.mark.long if (number + (place == "action")) % 2 else ())
        for place in KINDS
        for number, name in enumerate(LEARNT)
    ],
)
def test_it_is_learnt_from_offline_and_then_online(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    cfg = composed("dataset=minari", f"dataset.id={record(place, name)}", "trainer=finetune", *SMALL)
    cfg["trainer"]["pretrain"]["updates"] = 3
    (outcome,) = train([cfg], [tmp_path / "run"])
    assert outcome.error is None
    for part in ("run", "run/offline"):
        assert json.loads((tmp_path / part / "result.json").read_text())["status"] == results.FINISHED
    env = gym(None, None, "Shows-v0", {"place": place, "name": name})()
    obs, _ = env.reset(seed=0)
    assert env.action_space.contains(awr_exp.load(tmp_path / "run")(obs))


@pytest.mark.parametrize("place", KINDS)
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name_in_one_line(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = ["env=gym", "env.id=Shows-v0", f"+env.kwargs.place={place}", f"+env.kwargs.name={name}"]
    said = [refused(train, [composed("trainer=online", *env, *SMALL)], [tmp_path / "run"])]
    if name == "Text":
        id = record(place, "Discrete")
        (file,) = tmp_path.glob(f"{id}/data/metadata.json")
        content = json.loads(file.read_text()) | {f"{place}_space": serialize_space(KINDS[place][name])}
        file.write_text(json.dumps(content))
        said.append(refused(load, id))
    for line in said:
        assert line is not None
        assert f"is a {name}" in line or f"are a {name}" in line
        assert "one of Box" in line or "wrap it, so that they are a Box" in line
        assert "\n" not in line
