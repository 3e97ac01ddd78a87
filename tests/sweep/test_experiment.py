"""Configurations become trained members."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from awr_exp import experiment, results
from awr_exp.errors import UserError
from awr_exp.metadata import difference, policy_metadata
from awr_exp.sweep.group import Group
from awr_exp.training import checkpoint, memory
from awr_exp.training.callbacks import Report
from awr_exp.training.checkpoint import State
from awr_exp.training.online import Online
from awr_exp.training.rows import read, series
from awr_exp.types import RewardUnit
from tests.conftest import CONTINUOUS, SMALL, composed, train

ONLINE = [
    "trainer=online", "env=cartpole", "schedule=interleaved", "schedule.learning_starts=32", "network.hidden=[8]",
    "logger=jsonl", "trainer.eval_episodes=1", "trainer.compile=false", "trainer.replay_size=400", "trainer.envs=4",
    "trainer.report_interval=32", "trainer.eval_interval=10_000", "schedule.update_interval=200", "threads=1",
]  # fmt: skip

FINETUNE = [
    *(option for option in ONLINE if option != "trainer=online"), "trainer=finetune", "dataset=cartpole_mixed",
    "trainer.pretrain.updates=5", "trainer.pretrain.eval_episodes=1", "trainer.pretrain.compile=false",
]  # fmt: skip


def test_what_does_not_fit_the_memory_is_trained_in_parts(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    small = [*SMALL, "env=none", "trainer.updates=20", "trainer.compile=false"]
    cfgs = [composed(*small, f"agent.beta={beta}") for beta in (0.1, 0.3, 1.0)]
    data = experiment.build(cfgs[0]["dataset"])
    agent = experiment.build(cfgs[0]["agent"], spec=data.spec, seeds=[0])
    assert memory.capacity(agent, len(data), 0, 256, agent.device) > 3
    # A replay of their own takes what it takes.
    monkeypatch.setattr(memory, "available", lambda _: 10**8)
    plain, online = (memory.capacity(agent, len(data), kept, 256, agent.device) for kept in (0, 100_000))
    assert online < 10**8 / (100_000 * 10 * 4) < plain
    assert memory.capacity(agent, len(data), 0, 256, agent.device, estimates=True) < plain
    monkeypatch.setattr(memory, "capacity", lambda *_: 2)
    # A damaged checkpoint, which is found in the second part, costs the first one nothing.
    folders = [tmp_path / str(number) for number in range(3)]
    (folders[2] / "checkpoint").mkdir(parents=True)
    group = Group(cfgs, folders, ["a", "b", "c"], None, False)  # type: ignore[arg-type]
    monkeypatch.setattr(experiment, "reached", lambda _: ((-1, -1),))
    (folders[2] / "checkpoint" / "update_0000000007.safetensors").write_bytes(b"torn")
    outcomes = group.train()
    assert [outcome.error is None for outcome in outcomes] == [True, True, False]
    assert "can be read: start the run anew" in str(outcomes[2].error)
    assert [results.read(folder).status for folder in folders] == ["finished", "finished", "unfinished"]
    assert "3 members do not fit the memory of cpu: training 2 at a time" in caplog.text


@pytest.mark.slow
def test_jobs_at_one_update_but_different_steps_go_on_apart(tmp_path: Path) -> None:
    """Before learning starts, steps are all that online runs differ in."""
    steps = (64, 128)
    cfgs = [composed(*ONLINE, f"seed={seed}", f"trainer.env_steps={count}") for seed, count in enumerate(steps)]
    folders = [tmp_path / "0", tmp_path / "1"]
    for cfg, folder in zip(cfgs, folders, strict=True):
        train([cfg], [folder])
    assert [(run.update, run.env_steps) for run in map(results.read, folders)] == [(0, 64), (0, 128)]
    more = [cfg | {"trainer": cfg["trainer"] | {"env_steps": 256}} for cfg in cfgs]
    outcomes = Group(more, folders, ["a", "b"], None, False).train()  # type: ignore[arg-type]
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [results.read(folder).env_steps for folder in folders] == [256, 256]


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize(
    ("options", "owner", "method", "call"),
    [(ONLINE, Report, "call", 3), (FINETUNE, checkpoint, "keep", 1), (FINETUNE, Online, "train", 1)],
)
def test_rows_of_a_killed_run_are_there_once_though_the_update_stays_0(
    options: list[str],
    owner: Any,
    method: str,
    call: int,
    tmp_path: Path,
    datasets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed at that call of the online trainer's method: after the only checkpoint, which is of step 0, or before."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    cfg, calls = composed(*options, "trainer.env_steps=128"), iter(range(call - 1))
    train([cfg], [tmp_path / "whole"])
    method_itself = getattr(owner, method)

    def dying(self: Any, *arguments: Any, **options: Any) -> Any:
        if getattr(self, "title", "learning") != "learning":
            return method_itself(self, *arguments, **options)
        if next(calls, None) is None:
            raise Killed
        return method_itself(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, dying)
        with pytest.raises(Killed):
            train([cfg], [tmp_path / "killed"])
    assert {row["update"] for row in read(tmp_path / "killed")} == {0}
    train([cfg], [tmp_path / "killed"])
    whole, killed = (
        [row for row in read(tmp_path / name) if not row["name"].endswith("per_second")] for name in ("whole", "killed")
    )
    assert killed == whole
    assert any(row["update"] == 0 < row["env_steps"] for row in whole)


def finetuned(folder: Path, *options: str) -> State:
    """The newest state of a run in `folder` of these options."""
    (outcome,) = train([composed(*FINETUNE, "trainer.env_steps=64", *options)], [folder])
    assert outcome.error is None
    found = checkpoint.latest(folder)
    assert found is not None
    return found[0]


@pytest.mark.slow
def test_a_policy_to_begin_with_must_mean_the_same_here(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same shapes it always is. Nothing is learnt in so few steps: what it began with is still there."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    begin = finetuned(tmp_path / "source")
    source = f"resume_policy={tmp_path}/source"
    for option, message in {
        "network.activation=tanh": "with network.activation=relu, not tanh: give the same, or train anew",
        "head=categorical": r"with head._target_=\S+auto, not \S+Categorical",
        "agent.normalize_observations=false": "with normalize_observations=True, not False",
        "agent.normalize_values=true": "with normalize_values=False, not True",
    }.items():
        with pytest.raises(UserError, match=message):
            finetuned(tmp_path / "other", source, option)
    assert not (tmp_path / "other" / "checkpoint").exists()
    same = finetuned(tmp_path / "same", source, "network.init=xavier")
    assert begin["actor.step"].item() > 0
    assert "optimizer" not in caplog.text
    assert "trained as" not in caplog.text
    finetuned(tmp_path / "kind", source, "agent=marwil", "agent.value_iters=1")
    assert "trained as" not in caplog.text
    finetuned(tmp_path / "rwr", source, "agent=rwr", "agent.value_iters=1")
    assert "trained as AWR, and its critic is taken for that of RWR: what the two predict may differ" in caplog.text
    caplog.set_level("INFO")
    momentum = finetuned(tmp_path / "momentum", source, "optimizer=momentum")
    assert "trained with another optimizer, whose moments start anew" in caplog.text
    for name, value in begin.items():
        if name.startswith(("actor", "critic", "normalizer")):
            assert torch.equal(same[name], value)
            forgotten = name.partition(".")[2] in ("mean", "square", "step") and not name.startswith("normalizer")
            assert torch.equal(momentum[name], torch.zeros_like(value) if forgotten else value), name


def test_facts_differ_where_the_task_does() -> None:
    metadata = policy_metadata(CONTINUOUS, composed()["agent"])
    saved = json.loads(json.dumps(metadata))
    assert difference(saved, metadata) is None
    wider = policy_metadata(replace(CONTINUOUS, action_high=(1.0, 5.0)), composed()["agent"])
    assert difference(saved, wider) == "spec.action_high=[1.0, 4.0], not [1.0, 5.0]"
    del saved["normalize_values"]
    assert difference(saved, metadata) is None


def test_facts_differ_where_values_are_in_other_units() -> None:
    scaled = {scale: policy_metadata(CONTINUOUS, composed()["agent"], RewardUnit(scale)) for scale in (1.0, 0.1)}
    assert difference(scaled[1.0], scaled[0.1]) == "reward_scale=1.0, not 0.1"
    here, there = (
        policy_metadata(CONTINUOUS, composed("agent.normalize_values=true", f"agent.gamma={gamma}")["agent"])
        for gamma in (0.99, 0.9)
    )
    assert difference(here, there) == "gamma=0.99, not 0.9"
    # One that has no values is in no such units.
    assert policy_metadata(CONTINUOUS, composed("agent=bc")["agent"], RewardUnit(0.1)) == policy_metadata(
        CONTINUOUS, composed("agent=bc")["agent"]
    )


@pytest.mark.parametrize("own", [True, False], ids=["its offline part", "another run"])
def test_a_run_that_has_begun_needs_no_more_what_it_began_with(
    own: bool, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    finetuned(tmp_path / "run")
    options = [] if own else [f"resume_policy={tmp_path}/run/offline"]
    folder = tmp_path / ("run" if own else "second")
    finetuned(folder, *options)
    shutil.rmtree(tmp_path / "run" / "offline")
    finetuned(folder, *options, "trainer.env_steps=96")
    assert results.read(folder).env_steps == 96
    assert not (tmp_path / "run" / "offline").exists()


def test_a_data_set_that_cannot_be_written_fails_a_run_which_tries_again_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    options = [*ONLINE, "env=pendulum", "recorder.dataset_id=mine/new-v0"]
    (outcome,) = train([composed(*options, "trainer.env_steps=96")], [tmp_path / "run"])
    assert "data set mine/new-v0 was not written: no episode to keep has ended" in str(outcome.error)
    assert "eval/return_mean" in outcome.metrics
    assert results.read(tmp_path / "run").status == "failed"
    (outcome,) = train([composed(*options, "trainer.env_steps=800")], [tmp_path / "run"])
    assert outcome.error is None
    assert results.read(tmp_path / "run").status == "finished"
    assert (tmp_path / "minari" / "mine" / "new-v0").is_dir()


def test_the_mean_of_the_last_evaluations_goes_on_where_a_run_was_left(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    options = [*SMALL, "trainer.eval_interval=4", "trainer.checkpoint_interval=4", "agent.actor_lr=0.01"]
    for updates in (8, 20):
        (outcome,) = train([composed(*options, f"trainer.updates={updates}")], [tmp_path])
        assert outcome.error is None
    metrics, _ = series(tmp_path)
    means, recent = ([*metrics[f"eval/return_{name}"].values()] for name in ("mean", "recent"))
    assert len(set(means)) == 5
    assert recent == pytest.approx([np.mean(means[max(0, n - 3) : n]) for n in range(1, 6)])


def test_a_run_that_is_at_work_is_not_begun_again(tmp_path: Path) -> None:
    cfg, folders = composed(*ONLINE, "trainer.env_steps=96"), [tmp_path / "a", tmp_path / "b"]
    with (
        results.file_lock(folders[1]),
        pytest.raises(UserError, match=f"another process is at work in {folders[1]}: wait for it, or stop it first"),
    ):
        train([cfg, cfg | {"seed": 1}], folders, ["a", "b"])
    assert not list(folders[0].iterdir())
    outcomes = train([cfg, cfg | {"seed": 1}], folders, ["a", "b"])
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert not (folders[1] / "lock").exists()


def test_what_a_full_disk_costs_in_the_end_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    options = composed(*ONLINE, "trainer.env_steps=96")
    for place, module, name in (
        ("result.json", results, "atomic_write"),
        ("newest checkpoint", checkpoint, "save_file"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            (outcome,) = train([options], [tmp_path / name])
        assert f"{place} could not be written: make room, then resume" in str(outcome.error)
        (outcome,) = train([options], [tmp_path / name])
        assert outcome.error is None
        assert results.read(tmp_path / name).status == "finished"


def test_a_baseline_that_fails_is_no_baseline_and_costs_the_run_nothing(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    cfg = composed(*SMALL, "baseline=bc", "baseline.actor_lr=1e30", "trainer.updates=100", "trainer.eval_interval=50")
    (outcome,) = train([cfg], [tmp_path])
    assert outcome.error is None
    assert "baseline BC" in (shown := capsys.readouterr().out)
    assert "failed: training diverged before update 50" in shown
    assert "baseline/return_mean" not in {row["name"] for row in read(tmp_path)}


def test_a_run_goes_on_with_another_number_of_samples_to_choose_from() -> None:
    known = policy_metadata(CONTINUOUS, composed("agent=iql")["agent"]) | {"best_of": 1}
    assert difference(known, known | {"best_of": 32}) is None
    assert difference(known | {"conditioned": False}, known | {"conditioned": True}) == "conditioned=False, not True"


def test_recorder_settings_without_a_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recorder is .*, which has no _target_: choose collect=<one of its options>"):
        composed(*ONLINE, "collect=none", "recorder.dataset_id=mine/none-v0")
    with pytest.raises(UserError, match=r"recorder\.last_steps is of a data set: give it a recorder\.dataset_id"):
        train([composed(*ONLINE, "recorder.last_steps=100", "trainer.env_steps=96")], [tmp_path / "run"])


PHASED = [*(option for option in FINETUNE if "schedule" not in option), "schedule=phased"]
WRONG = {
    "agent=bc": (FINETUNE, "trainer=finetune needs an agent that learns values: choose agent=awr"),
    "env=none": (FINETUNE, "trainer=finetune collects in an environment: choose one, such as env=cartpole"),
    "schedule.learning_starts=99999": (FINETUNE, "since schedule.learning_starts=99999: lower it, or give more steps"),
    "schedule.overlap=true": (PHASED, "schedule.overlap=true collects in other processes: give trainer.workers=1"),
    "trainer.offline_share=null trainer.offline_share_end=0": (FINETUNE, "offline_share_end needs a trainer.offline_s"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_tuned_is_said_before_anything_is_trained(
    wrong: str, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    options, message = WRONG[wrong]
    with pytest.raises(UserError, match=message):
        train([composed(*options, *wrong.split())], [tmp_path / "run"])
    assert not list((tmp_path / "run").glob("*"))


TAKEN = "recorder.dataset_id=awr_exp/cartpole-mixed-v0"


@pytest.mark.slow
def test_a_data_set_that_is_there_already_fails_its_own_job_before_anything_is_trained(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    (alone,) = train([composed(*FINETUNE, TAKEN)], [tmp_path / "run"])
    assert "already: choose another recorder.dataset_id" in str(alone.error)
    assert not list((tmp_path / "run").iterdir())
    options = [*FINETUNE, "trainer.env_steps=128"]
    wrong = {TAKEN: "cartpole-mixed-v0' is in", "recorder.dataset_id=nonsense": "'nonsense' is not a Minari id"}
    cfgs = [composed(*options, *option.split(), f"seed={seed}") for seed, option in enumerate(wrong)]
    cfgs[1:1] = [composed(*options, f"recorder.dataset_id=mine/fused-v{seed}", f"seed={seed}") for seed in (7, 8)]
    folders = [tmp_path / str(number) for number in range(4)]
    caplog.clear()
    outcomes = Group(cfgs, folders, list("abcd"), None, False).train()  # type: ignore[arg-type]
    for number, message in zip((0, 3), wrong.values(), strict=True):
        assert message in str(outcomes[number].error)
        assert caplog.text.count(message) == 1
        assert not list(folders[number].iterdir())
    for number in (1, 2):
        assert outcomes[number].error is None
        assert results.read(folders[number]).env_steps == 128
        assert outcomes[number].metrics == results.read(folders[number]).metrics
        assert (datasets / "mine" / f"fused-v{6 + number}").exists()
