"""Copies of episodes with goals that they came to are what the environment would have said of them."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from awr_exp.data import export, packing
from awr_exp.data.hindsight import relabelled
from awr_exp.data.holdout import split
from awr_exp.data.minari import load
from awr_exp.data.transitions import Transitions
from awr_exp.envs.build import task
from awr_exp.envs.episode import at_random, play
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.goals import Judge, within
from awr_exp.envs.make import gym
from tests.conftest import composed, refused, train

PLACE = spaces.Box(-9, 9, (1,), np.float32)


def near(achieved: Any, desired: Any) -> Any:
    return np.abs(np.subtract(achieved, desired, dtype=np.float64)).max(-1) <= 0.5


class Plain(gymnasium.Env):
    """A walk along a line to a goal."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)
    observation_space: spaces.Space = spaces.Dict(observation=PLACE, achieved_goal=PLACE, desired_goal=PLACE)

    def seen(self) -> Any:
        place = self.place.copy()
        return {"observation": place, "achieved_goal": place.copy(), "desired_goal": self.goal.copy()}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.goal, self.count = np.zeros(1, np.float32), self.np_random.uniform(2, 3, 1).astype("f4"), 0
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        self.place, self.count = (self.place + action).astype(np.float32), self.count + 1
        there = bool(near(self.place, self.goal))
        return self.seen(), self.gained(there, action), there and self.ends, self.count == 12, {}

    ends = True

    def gained(self, there: bool, action: Any) -> float:
        return there - 1.0

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return near(achieved_goal, desired_goal) - 1.0

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return near(achieved_goal, desired_goal)

    def compute_truncated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return False


class Single(Plain):
    """Has functions that are wrong of many goals at once, as those of mazes in gymnasium-robotics are."""

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return bool(np.linalg.norm(achieved_goal - desired_goal) <= 0.5)

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return 0.0 if np.linalg.norm(achieved_goal - desired_goal) <= 0.5 else -1.0


class Endless(Plain):
    ends = False

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return False


class Choices(Plain):
    """Has goals that are choices."""

    observation_space = spaces.Dict(
        observation=PLACE, achieved_goal=spaces.Discrete(25, start=-12), desired_goal=spaces.Discrete(25, start=-12)
    )

    def seen(self) -> Any:
        goals = {"achieved_goal": self.place, "desired_goal": self.goal}
        return {"observation": self.place} | {key: np.int64(np.round(one[0])) for key, one in goals.items()}

    def step(self, action: Any) -> Any:
        seen, _, _, late, info = super().step(action)
        there = bool(seen["achieved_goal"] == seen["desired_goal"])
        return seen, there - 1.0, there, late, info

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return (achieved_goal == desired_goal) - 1.0

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return achieved_goal == desired_goal


class Vector(Plain):
    observation_space = PLACE

    def seen(self) -> Any:
        return self.place.copy()


class Unlike(Plain):
    observation_space = spaces.Dict(observation=PLACE, achieved_goal=PLACE, desired_goal=spaces.Box(-9, 9, (2,)))

    def seen(self) -> Any:
        return super().seen() | {"desired_goal": np.repeat(self.goal, 2)}


class Parts(Plain):
    observation_space = spaces.Dict(achieved_goal=spaces.Dict(x=PLACE), desired_goal=spaces.Dict(x=PLACE))

    def seen(self) -> Any:
        return {"achieved_goal": {"x": self.place}, "desired_goal": {"x": self.goal}}


class Costly(Plain):
    """Rewards depend on actions, too."""

    def gained(self, there: bool, action: Any) -> float:
        return there - 1.0 - float(np.abs(action[0]))


class Broken(Plain):
    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        return info["is_success"] - 1.0


class Mute(Plain):
    compute_terminated = None  # type: ignore[assignment]


class Other(Plain):
    """Calls its goals otherwise."""

    observation_space = spaces.Dict(place=PLACE, achieved_goal=PLACE, desired_goal=PLACE)


for kind in (Plain, Single, Endless, Choices, Vector, Unlike, Parts, Costly, Broken, Mute, Other):
    gymnasium.register(f"{kind.__name__}Line-v0", f"{__name__}:{kind.__name__}")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def record(kind: str, episodes: int = 12) -> str:
    """The id of a data set of random actions."""
    make_env = gym(None, None, f"{kind}Line-v0")
    spec, id = task(make_env), f"test/{kind.lower()}-v0"
    fleet, rng = InProcess(make_env, spec.obs_dim), np.random.default_rng(0)
    assert export.create(id, [play(fleet, at_random(spec), n, rng) for n in range(episodes)], spec, make_env(), None)
    return id


def episodes(data: Transitions) -> list[dict[str, np.ndarray]]:
    """The episodes as they lie in a data set, with the observations in their parts."""
    found = []
    for rows in data.packed.split((data.lengths + 1).tolist()):
        one = {name: data.schema.read(rows, name).numpy() for name in ("obs", "action", "reward", "terminated")}
        found.append(one | {"truncated": data.schema.read(rows, "truncated").numpy()})
    return found


ACHIEVED, DESIRED, OBSERVATION = 0, 1, 2
"""The columns of an observation, by the alphabet."""


@pytest.mark.parametrize("kind", ["Plain", "Single", "Endless"])
def test_a_copy_is_the_episode_with_a_goal_that_it_came_to(kind: str) -> None:
    id = record(kind)
    data, told = load(id), load(id, hindsight=3)
    own, copies = episodes(data), episodes(told)
    assert len(copies) == 4 * len(own)
    assert told.origin.tolist() == 4 * list(range(12))
    assert (told.info.episodes, told.info.return_mean) == (data.info.episodes, data.info.return_mean)
    assert told.info.fingerprint != data.info.fingerprint
    for number, (copy, origin) in enumerate(zip(copies, told.origin.tolist(), strict=True)):
        recorded, steps = own[origin], len(copy["reward"]) - 1
        np.testing.assert_array_equal(copy["obs"][:, (ACHIEVED, OBSERVATION)], recorded["obs"][: steps + 1, ::2])
        np.testing.assert_array_equal(copy["action"][:steps], recorded["action"][:steps])
        if number < 12:
            np.testing.assert_array_equal(copy["obs"], recorded["obs"])
            np.testing.assert_array_equal(copy["reward"], recorded["reward"])
            continue
        (goal,) = set(copy["obs"][:, DESIRED].tolist())
        assert goal in recorded["obs"][1:, ACHIEVED]
        there = np.abs(copy["obs"][1:, ACHIEVED].astype(np.float64) - goal) <= 0.5
        np.testing.assert_array_equal(copy["reward"][:-1], there - 1.0)
        if kind == "Endless":
            assert steps == len(recorded["reward"]) - 1
            assert there.any()
        else:
            assert np.flatnonzero(there).tolist() == [steps - 1]
        last = [kind != "Endless", kind == "Endless"]
        assert [copy[name][-2] for name in ("terminated", "truncated")] == last
        assert not any(
            copy[name][at].any() for name in ("terminated", "truncated") for at in (slice(-2), slice(-1, None))
        )
        assert not copy["action"][-1].any()
    assert len({one["obs"][0, DESIRED] for one in copies}) > 36
    torch.testing.assert_close(load(id, hindsight=3).packed, told.packed)
    batch = told.sample(torch.arange(len(told)).unsqueeze(0))
    torch.testing.assert_close(
        batch.obs[0, 1:, DESIRED][~told.last[:-1]], batch.next_obs[0, :-1, DESIRED][~told.last[:-1]]
    )


def test_goals_may_be_choices() -> None:
    copies = episodes(load(record("Choices"), hindsight=2))[12:]
    for copy in copies:
        achieved, desired = (copy["obs"][:, begin : begin + 25].argmax(1) for begin in (0, 25))
        np.testing.assert_array_equal(copy["reward"][:-1], (achieved == desired)[1:] - 1.0)
        assert copy["terminated"][-2]


def test_an_episode_and_its_copies_are_held_out_together() -> None:
    told = load(record("Plain"), hindsight=3)
    learnt, held_out = split(told, 0.25, 0)
    assert (learnt.info.episodes, held_out.info.episodes) == (9, 3)
    assert (len(learnt.lengths), len(held_out.lengths)) == (36, 12)
    begins = [{one["obs"][1, OBSERVATION] for one in episodes(part)} for part in (learnt, held_out)]
    assert (len(begins[0]), len(begins[1]), len(begins[0] & begins[1])) == (9, 3, 0)


def test_it_comes_after_the_choice_of_episodes_and_before_the_units_of_rewards() -> None:
    id = record("Plain")
    told = load(id, hindsight=2, top_percent=50, reward_scale=0.5, reward_shift=-1, history=3, max_transitions=40)
    data = load(id, top_percent=50, max_transitions=40)
    plain = relabelled(data, 2, within(0.5))
    assert told.lengths.tolist() == plain.lengths.tolist()
    assert len(told.lengths) == 3 * data.info.episodes
    torch.testing.assert_close(told.reward, 0.5 * plain.reward - 1)
    assert set(told.reward.tolist()) == {-1.0, -1.5}
    assert told.spec.obs_dim == 9
    scaled = load(id, reward_scale=0.5)
    torch.testing.assert_close(
        relabelled(scaled, 1, within(0.5)).reward, load(id, hindsight=1, reward_scale=0.5).reward
    )


def test_a_distance_judges_data_without_an_environment() -> None:
    from awr_exp.data.episodes import from_episodes

    id = record("Plain")
    told, own = load(id, hindsight=2, goal_reward=0.5), load(id, hindsight=2)
    torch.testing.assert_close(told.packed, own.packed)
    nowhere = from_episodes(
        "mine",
        told.stored,
        [{"observations": np.zeros((3, 3)), "actions": np.zeros((2, 1)), "rewards": [0, 0], "terminated": True}],
    )
    said = refused(relabelled, nowhere, 1, within(0.5))
    assert said is not None
    assert "has other terminations than its goals say in 50.00% of its steps, the first in step 0 of episode 0" in said


REFUSED = {
    "Vector": "has observations without achieved_goal, so that no other goal can be put into them: leave out",
    "Unlike": "has achieved_goal of float32 [1] and desired_goal of float32 [2], which are not alike",
    "Parts": "has parts in its achieved_goal, and goals are one part each",
    "Costly": "has other rewards than its goals say in 100.00% of its steps, the first in step 0 of episode 0: -1.",
    "Broken": "cannot judge the data's goals: compute_reward failed (KeyError: 'is_success')",
    "Mute": "environment 'MuteLine-v0' has no compute_terminated to judge other goals by: leave out dataset.hindsight",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_told_otherwise_is_refused_in_one_line(kind: str) -> None:
    said = refused(lambda: load(record(kind), hindsight=1))
    assert said is not None
    assert REFUSED[kind] in said
    assert "\n" not in said
    assert "leave out dataset.hindsight" in said


def test_who_judges_is_asked_for_where_nobody_can() -> None:
    id = record("Plain")
    data = load(id)
    said = {
        "the data have observations of achieved_goal [1], desired_goal [1], observation [1], the environment of": {
            "hindsight": 1, "goal_reward": "OtherLine-v0"
        },
        "dataset.goal_reward has no effect without copies: give dataset.hindsight=4": {"goal_reward": 0.5},
        "dataset.hindsight is -1; it must be a whole number of at least 0": {"hindsight": -1},
        "dataset.goal_reward is -1; it must be": {"goal_reward": -1},
        "environment 'nowhere:Line-v0' cannot be made: No module named 'nowhere'": {
            "hindsight": 1, "goal_reward": "nowhere:Line-v0"
        },
    }  # fmt: skip
    for message, options in said.items():
        assert message in (refused(partial(load, id, **options)) or "")
    endless = Judge("nobody", lambda achieved, desired: (np.full(len(achieved), np.nan),) * 3)
    assert "has other rewards than its goals say" in (refused(relabelled, data, 1, endless) or "")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (None, "does not say where it was collected, so that nothing says what another goal is worth: leave out"),
        ("Gone-v0", "which is not registered here (Environment `Gone` doesn't exist"),
        ("mine.lines:Line-v0", "would import a module or open a file: if you trust its code, dataset.goal_reward=mine"),
    ],
)
def test_an_environment_that_is_not_there_or_not_trusted(env: str | None, message: str, tmp_path: Path) -> None:
    import json

    (place,) = (tmp_path / "minari").glob(f"{record('Plain')}/data/metadata.json")
    content = json.loads(place.read_text())
    own = json.loads(content["env_spec"])
    content["env_spec"] = json.dumps(own | {"id": env}) if env else None
    place.write_text(json.dumps(content))
    said = refused(load, "test/plain-v0") or ""
    assert not said
    said = refused(lambda: load("test/plain-v0", hindsight=1)) or ""
    assert message in said
    assert "\n" not in said
    # What a user types is trusted.
    assert len(load("test/plain-v0", hindsight=1, goal_reward="PlainLine-v0").lengths) == 24


def test_copies_that_the_memory_does_not_take_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load(record("Plain"))
    monkeypatch.setattr(packing, "free_memory", lambda: 10_000)
    said = refused(relabelled, data, 40, within(0.5))
    assert said is not None
    assert "GB of memory with dataset.hindsight=40, and 0.0 GB are free: give fewer, or dataset.max_transitions" in said


@pytest.mark.long
def test_a_replay_begins_with_copies_too(tmp_path: Path) -> None:
    small = [
        "trainer=finetune", "trainer.pretrain.updates=2", "trainer.env_steps=20", "trainer.envs=2", "trainer.workers=0",
        "trainer.batch_size=8", "trainer.compile=false", "trainer.eval_episodes=1", "trainer.eval_interval=20",
        "schedule=interleaved", "schedule.learning_starts=10", "network.hidden=[8]", "logger=jsonl", "agent=iql",
    ]  # fmt: skip
    cfg = composed("dataset=minari", f"dataset.id={record('Plain')}", "dataset.hindsight=2", *small)
    (outcome,) = train([cfg], [tmp_path / "run"])
    assert outcome.error is None
    assert "eval/return_mean" in outcome.metrics


def test_a_configuration_from_elsewhere_names_no_module_to_judge_goals_by() -> None:
    from awr_exp.config import CONF
    from awr_exp.guard import refusals
    from awr_exp.vocabulary import kinds

    cfg = composed("dataset=minari", "dataset.id=a/b-v0", "dataset.hindsight=1", "dataset.goal_reward=evil:Line-v0")
    assert ("evil", "wants to import 'evil' for its environment") in list(refusals(cfg, kinds(CONF)))
    cfg["dataset"]["goal_reward"] = "Line-v0"
    assert not list(refusals(cfg, kinds(CONF)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_goals_of_the_maze_are_reached_by_hindsight_alone(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from awr_exp.envs.point_maze import FAR

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    small = ["experiment=point_maze", "trainer.updates=3000", "logger=jsonl"]
    found = []
    for number in (0, 20):
        (outcome,) = train([composed(*small, f"dataset.hindsight={number}")], [tmp_path / f"{number}"])
        found.append(outcome.metrics["eval/return_mean"])
    assert found[0] < -45
    assert -30 < found[1] < 1 - FAR
