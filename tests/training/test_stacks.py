"""Environments that show their last observations at once: a replay keeps single ones, and nobody sees a difference."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from awr_exp import results
from awr_exp.building.task import open_task
from awr_exp.data.replay import Replay
from awr_exp.data.schema import TRANSITION
from awr_exp.data.selection import select
from awr_exp.envs.build import task
from awr_exp.envs.make import from_dataset, gym
from awr_exp.envs.source import EnvSource, asked
from awr_exp.training.collect import Collector
from awr_exp.training.learner import Learner
from awr_exp.types import Batch
from tests.conftest import CONTINUOUS, composed, make_awr, random_batch, train
from tests.training.test_finetune import LENGTHS, random_data
from tests.training.test_online import REFRESHED, trainer

GRID = "awr_exp.envs.pixel_grid:PixelGrid-v0"


def stack(size: int, **options: Any) -> dict[str, Any]:
    return {"FrameStackObservation": {"stack_size": size, **options}}


class Turning(gymnasium.Env):
    """Parts of all kinds, in episodes of one to five steps."""

    observation_space = spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Box(0, 255, (3, 2), np.uint8))
    observation_space["c"] = spaces.Discrete(4, start=1)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.left = int(self.np_random.integers(1, 6))
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return self.observation_space.sample(), float(action), self.left == 0, False, {}


gymnasium.register("Turning-v0", Turning)


@pytest.mark.parametrize("id", [GRID, "Turning-v0", "CartPole-v1"])
def test_what_is_learnt_from_is_what_was_shown(id: str) -> None:
    make = gym(None, None, id, wrappers=[stack(4)])
    spec = task(make)
    assert spec.history == 4
    batches = []
    for own in (spec, replace(spec, history=1)):
        replay = Replay(own, 2, 2, 120)
        collector = Collector(make, make_awr(spec, [3, 8]), replay)
        for steps in (30, 1, 50):
            collector.collect(steps, random=True)
        # What is left of the past of the oldest is less.
        batches.append(replay.newest(57))
    single, whole = batches
    assert bool((single.terminated | single.truncated).any())
    for name in TRANSITION:
        assert torch.equal(getattr(single, name), getattr(whole, name)), name


def test_other_stacks_are_kept_as_they_are() -> None:
    for wrappers in ([stack(4, padding_type="zero")], [stack(4), "FlattenObservation"], []):
        assert task(gym(None, None, "CartPole-v1", wrappers=wrappers)).history == 1
    assert task(gym(None, None, "CartPole-v1", wrappers=[stack(2), stack(3)])).history == 3


def test_a_run_is_resumed_to_the_bit(tmp_path: Path) -> None:
    make = gym(None, None, "CartPole-v1", wrappers=[stack(3)])

    def run(folder: str, **options: Any) -> Any:
        few = {"replay_size": 90, "checkpoint_interval": 60, "report_interval": 60, "eval_interval": 180}
        return trainer([tmp_path / folder], make_awr(task(make)), REFRESHED, make_env=make, **few, **options)

    whole, cut = run("whole", env_steps=180), run("cut", env_steps=120)
    whole.run(), cut.run()
    resumed = run("cut", env_steps=180)
    resumed.resume(), resumed.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(resumed.agent.state_dict()[name], tensor), name
    kept = [one.learners[0].collector.replay.newest(1_000) for one in (resumed, whole)]
    assert all(torch.equal(getattr(kept[0], name), getattr(kept[1], name)) for name in TRANSITION)


def test_a_policy_learns_from_stacked_pixels(tmp_path: Path) -> None:
    steps = ["trainer.env_steps=64", "trainer.envs=4", "schedule.samples_per_iteration=32", "trainer.replay_size=48"]
    cfg = composed(
        "dataset=none", "trainer=online", "env=gym", f"env.id={GRID}", "network=cnn_small", "logger=jsonl",
        "env.wrappers=[{FrameStackObservation:{stack_size:4}}]", "schedule.critic_steps=1", "schedule.actor_steps=1",
        "trainer.batch_size=4", "trainer.eval_episodes=1", "trainer.report_interval=32", *steps,
    )  # fmt: skip
    assert open_task(cfg, torch.device("cpu"))[2].history == 4
    (outcome,) = train([cfg], [tmp_path])
    assert outcome.error is None
    past = results.read(tmp_path)
    assert (past.status, past.env_steps) == (results.FINISHED, 64)


def test_data_that_a_run_begins_with_are_seen_alike() -> None:
    data = select(random_data(), history=4)
    replay = Replay(data.spec, 2, 3, 30, data=data)
    assert replay.ring.shape[-1] == data.packed.shape[-1]
    rows = torch.arange(sum(LENGTHS) // 3 * 3).view(3, -1)
    kept, theirs = replay.sample(rows.flatten().unsqueeze(0)), data.sample(rows.flatten().unsqueeze(0))
    # A share that begins within an episode has none of its past.
    same = torch.ones_like(rows, dtype=torch.bool)
    same[1:, :3] = False
    for name in ("obs", "next_obs", "action", "reward", "terminated"):
        for member in range(2):
            own, there = getattr(kept, name)[member], getattr(theirs, name)[0]
            assert torch.equal(own[same.flatten()], there[same.flatten()]), name
    first = kept.obs[0].view(3, -1, 4, 3)[1:, 0]
    assert torch.equal(first, first[:, -1:].expand_as(first))


def test_what_is_collected_is_as_the_environment_shows_it() -> None:
    """Recorded through such a wrapper, the data have whole stacks, and the replay none."""
    data = select(random_data(), history=3)
    through = EnvSource("Pendulum-v1", {}, None, (asked(stack(3)),))
    info = replace(data.info, env_spec=through, history=1)
    assert task(from_dataset(info, replace(data.spec, history=1))).history == 3


def test_steps_are_made_for_the_memory_that_the_replay_is_in() -> None:
    """Final observations get more room; what was captured would go on reading where they were."""
    made: list[Any] = []
    replay = Replay(CONTINUOUS, 1, 1, 100)
    functions: Any = {"batch": lambda agent, replay: made.append(replay.table) or len(made)}
    learner = Learner(make_awr(), replay, REFRESHED, functions, 8)
    assert [learner.functions["batch"], learner.functions["batch"]] == [1, 1]
    data = random_batch(CONTINUOUS, 1, 40)
    replay.extend(Batch(**{name: own.unsqueeze(2) for name, own in vars(data).items() if own is not None}))
    assert [learner.functions["batch"], learner.functions["batch"]] == [2, 2]
    assert made[1] is replay.table
