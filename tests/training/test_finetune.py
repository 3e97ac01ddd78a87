"""From offline to online: the data stay, in their share of every batch, and what the policy could is not forgotten."""

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest
import torch

from awr_exp import results
from awr_exp.agents.awr import AWR
from awr_exp.building.takeover import take_over
from awr_exp.data.replay import Replay
from awr_exp.data.selection import in_unit
from awr_exp.data.transitions import Transitions
from awr_exp.envs.make import from_dataset
from awr_exp.envs.source import EnvSource
from awr_exp.errors import UserError
from awr_exp.math.advantages import LambdaReturn
from awr_exp.seeding import draw_rows, shuffle_rows
from awr_exp.training import checkpoint
from awr_exp.training.evaluate import Evaluator
from awr_exp.training.finetune import Finetune, WatchForFall
from awr_exp.training.loggers import Jsonl
from awr_exp.training.rows import read
from awr_exp.training.run import Run
from awr_exp.training.schedules import Interleaved, Phased
from awr_exp.types import DataInfo, RewardUnit, Spec
from tests.conftest import CONTINUOUS, SMALL, Cli, composed, make_awr, random_batch, train

PENDULUM = Spec(3, 1, None, (-2.0,), (2.0,))
PHASED = Phased(samples_per_iteration=60, critic_steps=5, actor_steps=7)
LENGTHS = (30, 5, 65)


def random_data(reward_scale: float = 1.0) -> Transitions:
    g = torch.Generator().manual_seed(0)
    packed = torch.randn(sum(LENGTHS) + len(LENGTHS), 3 + 1 + 3, generator=g)
    packed[:, -2:] = 0
    lengths = torch.tensor(LENGTHS)
    packed[(lengths + 1).cumsum(0) - 2, -1] = 1
    packed[33, -1], packed[33, -2] = 0, 1
    info = DataInfo("test/random-v0", np.zeros(3), "test", RewardUnit(reward_scale))
    return Transitions(packed, lengths, PENDULUM, info)


def trainer(folder: Path, agent: AWR, data: Transitions, schedule: Any = PHASED, **options: Any) -> Finetune:
    defaults: dict[str, Any] = {
        "offline_share": 0.25, "offline_share_end": None, "anneal_steps": None, "env_steps": 300, "envs": 3,
        "workers": 0, "replay_size": 150, "batch_size": 16, "report_interval": 100, "eval_interval": 150,
        "eval_episodes": 2, "checkpoint_interval": 100, "compile": False,
        "make_env": partial(gymnasium.make, "Pendulum-v1"),
    }  # fmt: skip
    parts = {"runs": [Run(folder, logger=Jsonl(folder), recorder=options.pop("recorder", None))], "schedule": schedule}
    return Finetune(agent, data, **(defaults | parts | options))


def watch(run: Finetune) -> WatchForFall:
    (found,) = [callback for callback in run.callbacks if isinstance(callback, WatchForFall)]
    return found


def agent(data: Transitions, lam: float = 0.9) -> AWR:
    own = make_awr(PENDULUM, [0], advantage=LambdaReturn(lam), dtype=torch.float32)
    own.fit_normalizer(*data.obs_statistics())
    return own


def test_it_collects_where_the_data_come_from_and_is_evaluated_where_they_say(tmp_path: Path) -> None:
    data = random_data()
    own, judge = EnvSource("Pendulum-v1", {"g": 2.0}, 40), EnvSource("Pendulum-v1", {}, 20)
    data.info = replace(data.info, env_spec=own, eval_env_spec=judge)
    info: Any = data.info
    recorder: Any = Mock(finish=Mock(return_value=None), metadata=dict)
    make_env = from_dataset(info, PENDULUM)
    run = trainer(tmp_path, agent(data), data, make_env=make_env, env_steps=150, recorder=recorder)
    run.run()
    lengths = {row["name"]: row["value"] for row in read(tmp_path)}
    assert lengths["eval/length_mean"] == 20
    (learner,) = run.learners
    place, best, _ = recorder.finish.call_args.args
    assert learner.collector.driver.hosts[0].hosted.fleet.make_env is place
    assert place().unwrapped.g == 2.0
    assert place().spec.max_episode_steps == 40
    # What was reached elsewhere is no score of what is recorded.
    assert best == -math.inf
    assert run.runs[0].best > -math.inf


def test_the_replay_begins_with_the_data_and_keeps_them() -> None:
    data = random_data()
    replay = Replay(PENDULUM, 1, 3, 30, data=data)
    kept = replay.sample(torch.arange(99).unsqueeze(0))
    theirs = data.sample(torch.arange(99).unsqueeze(0))
    for name in ("obs", "action", "reward", "next_obs", "terminated"):
        assert torch.equal(getattr(kept, name), getattr(theirs, name)), name
    # Each environment's share of 33 ends where it was cut, and the data's own ends stay.
    ends = (kept.truncated | kept.terminated)[0].nonzero().flatten().tolist()
    assert ends == [29, 32, 34, 65, 98]
    agent_ = agent(data)
    alone = agent_.targets(replay)["target"]
    steps = {
        name: tensor.view(1, 3, 33, *tensor.shape[2:])[:, :, :4].transpose(1, 2)
        for name, tensor in vars(kept).items()
        if tensor is not None
    }
    for _ in range(5):
        replay.extend(type(kept)(**steps))
    assert len(replay) == 99 + 30
    rows = torch.arange(129).view(3, 43)[:, :33].flatten().unsqueeze(0)
    assert torch.equal(replay.sample(rows).obs, kept.obs)
    assert torch.allclose(agent_.targets(replay)["target"][0, rows[0]], alone[0], atol=1e-6)


@pytest.mark.parametrize("drawn", [draw_rows, shuffle_rows])
def test_batches_have_their_share_of_the_data(tmp_path: Path, drawn: Any) -> None:
    run = trainer(
        tmp_path, agent(random_data()), random_data(), offline_share=0.5, offline_share_end=0.0, anneal_steps=200
    )
    (learner,) = run.learners
    replay = learner.collector.replay
    learner.collector.collect(40)
    for step, share in ((0, 8), (100, 4), (150, 2), (200, 0), (900, 0)):
        learner.step = step
        slots, _ = learner.slots("actor", 50, drawn)
        assert slots.shape == (50, 1, 16)
        kept = replay.slots_of(torch.arange(len(replay)).view(3, -1)[:, : replay.kept].flatten())
        assert (torch.isin(slots, kept).sum(-1) == share).all()
    even = trainer(tmp_path, agent(random_data()), random_data(), offline_share=None)
    even.learners[0].collector.collect(40)
    counts = torch.bincount(even.learners[0].slots("actor", 500, drawn)[0].flatten(), minlength=len(replay))
    assert counts.min() > 10
    assert (counts.max() - counts.min() <= 1) == (drawn is shuffle_rows)


@pytest.mark.parametrize("schedule", [PHASED, Interleaved(30, 5)])
def test_it_is_evaluated_first_keeps_its_normaliser_and_resumes(tmp_path: Path, schedule: Any) -> None:
    data = in_unit(random_data(reward_scale=0.1), RewardUnit(0.1, -1.0))
    lam = 0.9 if schedule is PHASED else 0.0
    whole = trainer(tmp_path / "whole", agent(data, lam), data, schedule)
    first = Evaluator(partial(gymnasium.make, "Pendulum-v1"), 1, 2).play(whole.agent).returns.mean()
    whole.run()
    rows = [row for row in read(tmp_path / "whole") if row["name"] == "eval/return_mean"]
    assert (rows[0]["env_steps"], rows[0]["value"]) == (0, pytest.approx(first))
    assert torch.equal(whole.agent.normalizer.mean[0], data.obs_statistics()[0])
    (learner,) = whole.learners
    assert -2.7 < learner.collector.replay.newest(10).reward.min() < -1
    trainer(tmp_path / "cut", agent(data, lam), data, schedule, env_steps=180).run()
    second = trainer(tmp_path / "cut", agent(data, lam), data, schedule)
    second.resume()
    second.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(second.agent.state_dict()[name], tensor), name
    assert torch.equal(second.learners[0].collector.replay.ring, learner.collector.replay.ring)
    began = [
        callback.began for one in (second, whole) for callback in one.callbacks if isinstance(callback, WatchForFall)
    ]
    assert began[0] == began[1] != []
    for name, found in (
        ("eval/return_at_start", np.mean(began[0])),
        ("eval/return_lowest", np.mean(whole.runs[0].returns)),
    ):
        assert whole.runs[0].latest[name] == second.runs[0].latest[name]
        assert (whole.runs[0].latest[name] <= found) if "lowest" in name else (whole.runs[0].latest[name] == found)
    other = random_data()
    other.info = DataInfo("test/random-v0", np.zeros(3), "another", RewardUnit(0.1))
    with pytest.raises(UserError, match="was trained on other data"):
        trainer(tmp_path / "cut", agent(data, lam), other, schedule).resume()


def test_a_fall_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = trainer(tmp_path, agent(random_data()), random_data(), env_steps=60)
    watch(run).began = [[0.0, 0.0]]
    run.run()
    assert "the return fell from the 0.0 that it began with to -1" in caplog.text


FINETUNE = [
    "trainer=finetune", "trainer.env_steps=512", "schedule.samples_per_iteration=128", "schedule.critic_steps=5",
    "schedule.actor_steps=10", "trainer.eval_interval=256", "trainer.eval_episodes=1", "trainer.compile=false",
    "network.hidden=[16]", "logger=jsonl",
]  # fmt: skip
OFFLINE = [
    "trainer.pretrain.updates=60", "trainer.pretrain.eval_interval=30", "trainer.pretrain.eval_episodes=1",
    "trainer.pretrain.compile=false",
]  # fmt: skip


def test_a_run_trains_offline_first_or_begins_with_one_that_did(cli: Cli, tmp_path: Path) -> None:
    done = cli(*FINETUNE, *OFFLINE, f"hydra.run.dir={tmp_path}/one")
    assert done.returncode == 0, done.stdout
    offline, online = read(tmp_path / "one" / "offline"), read(tmp_path / "one")
    best = max(row["value"] for row in offline if row["name"] == "eval/return_mean")
    assert next(row["value"] for row in online if row["name"] == "eval/return_mean") == pytest.approx(best)
    assert results.runs(tmp_path) == [results.read(tmp_path / "one")]
    began = checkpoint.best(tmp_path / "one" / "offline")
    assert began is not None
    begin = f"resume_policy={tmp_path}/one/offline"
    done = cli(*FINETUNE, begin, f"hydra.run.dir={tmp_path}/two")
    assert done.returncode == 0, done.stdout
    assert not (tmp_path / "two" / "offline").exists()
    # The same policy, critic and data: the same run.
    both = [[row for row in rows if "per_second" not in row["name"]] for rows in (online, read(tmp_path / "two"))]
    assert both[0] == both[1]


@pytest.fixture
def root(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))


def test_the_actor_begins_as_the_average_of_the_run_before() -> None:
    before, after = make_awr(ema_decay=0.9), make_awr(seeds=[5], ema_decay=0.9)
    for seed in range(3):
        before.update(random_batch(CONTINUOUS, 1, 16, seed))
    metadata = {"optimizer": "adam"}
    take_over(after, [metadata], [(before.state_dict(), metadata)])
    assert before.actor.average is not None
    assert not torch.equal(before.actor.average, before.actor.theta)
    assert torch.equal(after.actor.theta, before.actor.average)
    assert torch.equal(after.averaged().actor.theta, before.actor.average)
    assert torch.equal(after.critic.theta, before.critic.theta)


@pytest.mark.usefixtures("root")
def test_a_policy_without_a_critic_learns_a_new_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (clone,) = train([composed("agent=bc", *SMALL, "trainer.updates=20")], [tmp_path / "clone"])
    assert clone.error is None
    (tuned,) = train([composed(*FINETUNE, f"resume_policy={tmp_path}/clone")], [tmp_path / "tuned"])
    assert tuned.error is None
    assert "has no critic: a new one is learnt" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("root")
def test_a_member_that_did_not_learn_offline_does_not_go_online(tmp_path: Path) -> None:
    """It can do so once it is resumed with other settings; the others are as if alone."""
    folders = [tmp_path / name for name in ("diverging", "other")]
    cfgs = [composed(*FINETUNE, *OFFLINE, f"agent.actor_lr={lr}") for lr in ("1e30", "3e-4")]
    diverged, other = train(cfgs, folders, ["diverging", "other"])
    assert "training diverged" in str(diverged.error)
    assert not (folders[0] / "checkpoint").exists()
    assert (failed := results.read(folders[0])).status == "failed"
    assert "training diverged" in str(failed.error)
    assert other.error is None
    assert results.read(folders[1]).env_steps == 512
    (alone,) = train([cfgs[0]], [tmp_path / "alone"])
    assert "training diverged" in str(alone.error)
    (again,) = train([composed(*FINETUNE, *OFFLINE)], folders[:1])
    assert again.error is None
    assert results.read(folders[0]).env_steps == 512


@pytest.mark.usefixtures("root")
def test_an_offline_run_that_is_resumed_in_its_place_is_pointed_to_resume_policy(tmp_path: Path) -> None:
    train([composed(*SMALL, "trainer.updates=20")], [tmp_path])
    with pytest.raises(UserError, match="learnt from a data set alone: choose trainer=finetune resume_policy="):
        train([composed(*FINETUNE)], [tmp_path])
    train([composed(*FINETUNE, f"resume_policy={tmp_path}")], [tmp_path / "online"])
    with pytest.raises(UserError, match="the run to resume collects what it learns from: leave out trainer=offline"):
        train([composed(*SMALL, "network.hidden=[16]")], [tmp_path / "online"])


WRONG = {
    f"resume_policy={Path('/nowhere')}": "resume_policy=/nowhere is not the folder of a run with a checkpoint",
    "trainer.envs=9 dataset.max_transitions=5": "trainer.envs=9 environments cannot share the data set's ",
    "dataset=none": "trainer=finetune needs a data set: choose dataset=... or trainer=online",
    "trainer.offline_share=2": "trainer.offline_share is 2; it must be a number from 0 to 1, or null",
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.usefixtures("root")
def test_what_cannot_be_tuned_is_said_in_one_line(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(WRONG[wrong])) as error:
        train([composed(*FINETUNE, *wrong.split())], [tmp_path])
    assert "\n" not in str(error.value)
