"""`python -m awr_exp.collect`: data sets of any policy, the same ones however often they were stopped."""

import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import save_file

from awr_exp import collect as module
from awr_exp import config, settings
from awr_exp.data import export
from awr_exp.data.minari import load
from awr_exp.data.recording import Recording
from awr_exp.envs import episode
from awr_exp.envs.make import from_dataset
from awr_exp.errors import UserError
from awr_exp.training import checkpoint, recorder
from awr_exp.types import Spec
from tests.conftest import SMALL, Cli, composed, start, train


def collect(cwd: Path, root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"MINARI_DATASETS_PATH": str(root), "COLUMNS": "200"}
    command = [sys.executable, "-m", "awr_exp.collect", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.slow
def test_policies_from_random_to_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for policy, noise in (("random", 0.0), ("built-in", 0.5), ("built-in", 0.0)):
        id = f"cartpole/{policy}{int(10 * noise)}-v0"
        overrides = [f"policy={policy}", f"noise={noise}", "env=cartpole", "episodes=8", f"dataset_id={id}"]
        if noise != 0.5:
            module.collect(chosen(*overrides))
            continue
        done = collect(tmp_path, tmp_path, *overrides)
        assert done.returncode == 0, done.stdout
        assert f"train on it: python -m awr_exp.main dataset=minari dataset.id={id}" in done.stdout
    found = [load(f"cartpole/{name}-v0").info for name in ("random0", "built-in5", "built-in0")]
    assert found[0].return_mean < 40 < found[1].return_mean < found[2].return_mean == 500
    assert [info.episodes for info in found] == [8, 8, 8]
    assert found[1].ref_min_score == found[2].ref_min_score < 40
    assert found[2].ref_max_score == 500
    # There is nothing to compare random play with.
    assert found[0].ref_min_score is found[0].ref_max_score is None
    assert not list(tmp_path.rglob(".collecting*"))
    assert not (tmp_path / "outputs").exists()


def content(id: str = "CartPole-v1", **options: Any) -> dict[str, Any]:
    env = {"_target_": "awr_exp.envs.make.gym", "id": id, "kwargs": None}
    rest = {"episodes": 5, "noise": 0.0, "sample": False, "seed": 0, "trust": []}
    return {"policy": "random", "dataset_id": "test/mine-v0", "env": env} | rest | options


def test_what_happens_meanwhile_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for a while, and an id that is taken for a while."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "whole"))
    module.collect(content())
    whole = load("test/mine-v0").packed.numpy()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "hindered"))
    add, left = Recording.add, 3

    def full(self: Recording, **parts: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            with self.path.open("ab") as file:
                file.write(b"a torn row")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(self, **parts)

    monkeypatch.setattr(Recording, "add", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\): the same command goes on"):
        module.collect(content())
    taken = tmp_path / "hindered" / "test" / "mine-v0"
    shutil.copytree(tmp_path / "whole" / "test" / "mine-v0", taken)
    with pytest.raises(UserError, match=f"another test/mine-v0 is there by now: once {taken} is deleted or moved"):
        module.collect(content())
    shutil.rmtree(taken)
    module.collect(content())
    np.testing.assert_array_equal(load("test/mine-v0").packed.numpy(), whole)


def test_two_collections_of_one_id_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    play, refused = episode.play_seeded, []

    def typed_again(*arguments: Any) -> Any:
        with pytest.raises(UserError, match="another process is at work in"):
            module.collect(content())
        refused.append(arguments)
        return play(*arguments)

    monkeypatch.setattr(module, "play_seeded", typed_again)
    module.collect(content())
    assert len(refused) >= 5
    data = load("test/mine-v0")
    starts = torch.cat([torch.tensor([True]), data.last[:-1]])
    assert len(data.observations()[data.rows[starts]].unique(dim=0)) == data.info.episodes == 5
    assert [path.name for path in (tmp_path / "test").iterdir()] == ["mine-v0"]


class Odd(gymnasium.Env):
    """Has no end, and goes wrong in a certain way, if in any."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, wrong: str = "") -> None:
        if wrong == "make again" and Odd.made:
            raise RuntimeError("no licence")
        self.wrong, Odd.made = wrong, True

    made = False

    def reset(self, **options: Any) -> Any:
        if self.wrong == "reset":
            raise RuntimeError("no licence")
        return np.full(1, np.nan if self.wrong == "nan" else 0, np.float32), {}

    def step(self, action: Any) -> Any:
        if self.wrong == "step":
            raise RuntimeError("no licence")
        if self.wrong == "exit":
            sys.exit(0)
        return np.zeros(2 if self.wrong == "shape" else 1, np.float32), 1.0, False, False, {}


gymnasium.register("Odd-v0", "tests.test_collect:Odd")


@pytest.mark.parametrize("wrong", ["make again", "reset", "step", "exit", "nan", "shape"])
def test_an_environment_that_fails_is_named(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(Odd, "made", False)
    env = content()["env"] | {"id": "Odd-v0", "kwargs": {"wrong": wrong}}
    with pytest.raises(
        UserError,
        match=r"cannot be made: no licence|failed: (.*Error: |SystemExit: |.* not finite).*\(in the episode from seed",
    ):
        module.collect(content(env=env))
    assert not (tmp_path / "test" / "mine-v0").exists()


class Flaky(gymnasium.Wrapper):
    """Fails in its 4th, 8th, ... episode of all."""

    begun = 0

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))

    def reset(self, **options: Any) -> Any:
        Flaky.begun += 1
        if Flaky.begun % 4 == 0:
            raise RuntimeError("no licence")
        return self.env.reset(**options)


gymnasium.register("Flaky-v0", "tests.test_collect:Flaky")


def test_episodes_that_fail_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(recorder, "REFERENCE_EPISODES", 2)
    whole = content(dataset_id="test/whole-v0", episodes=3)
    module.collect(whole)
    assert "left out" not in capsys.readouterr().out
    module.collect(content("Flaky-v0", episodes=7))
    assert "the environment failed 2 times: those episodes are left out" in capsys.readouterr().out
    ours, theirs = load("test/mine-v0"), load("test/whole-v0")
    assert ours.info.episodes == 7
    # Those before the first failure are what they would have been.
    np.testing.assert_array_equal(ours.info.episode_returns[:3], theirs.info.episode_returns)


def test_an_environment_that_fails_in_the_end_costs_reference_scores_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(Asking, "most", 5)
    module.collect(content("Asking-v0"))
    assert "the data set gets no reference scores: the environment failed: RuntimeError: no licence" in caplog.text
    assert load("test/mine-v0").info.episodes == 5
    assert load("test/mine-v0").info.ref_min_score is None
    assert not list(tmp_path.rglob(".collecting*"))


def test_episodes_without_an_end_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the reference score, too."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(episode, "LONGEST", 30)
    module.collect(content("Odd-v0"))
    data = load("test/mine-v0")
    assert data.info.episode_returns.tolist() == [30] * 5
    assert data.packed[:, -1].sum() == 5


def test_what_no_data_set_can_name_is_refused_before_it_plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    gymnasium.register("OddClass-v0", Odd)
    with pytest.raises(UserError, match="no data set can name this environment: Callable found"):
        module.collect(content("OddClass-v0"))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_policy_of_a_run_plays_where_it_was_trained(
    finished: Path, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = collect(tmp_path, datasets, f"policy={finished}", "episodes=2", "dataset_id=mine/run-v0")
    assert done.returncode == 0, done.stdout
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    monkeypatch.setattr(recorder, "REFERENCE_EPISODES", 2)
    for number, extra in enumerate(("noise=0.2", "sample=true")):
        module.collect(chosen(f"policy={finished}", "episodes=2", f"dataset_id=mine/run{number}-v0", extra))
        assert load(f"mine/run{number}-v0").info.episodes == 2
    with pytest.raises(UserError, match=r"/run, which has 3 observation entries, the environment 4"):
        module.collect(chosen(f"policy={finished}", "env=cartpole", "dataset_id=mine/wrong-v0"))


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["policy=built-in", "noise=0.3", "env=pendulum", "episodes=40", "dataset_id=pendulum/mine-v0"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(whole))
    module.collect(chosen(*arguments))
    process = subprocess.Popen(
        [sys.executable, "-m", "awr_exp.collect", *arguments], env=os.environ | {"MINARI_DATASETS_PATH": str(killed)}
    )
    steps = killed / "pendulum" / ".collecting-mine-v0" / "steps.bin"
    deadline = time.monotonic() + 60
    while not (steps.exists() and steps.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "pendulum" / "mine-v0").exists()
    before = steps.stat().st_size
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(killed))
    with pytest.raises(UserError, match="was begun with other settings: give the same ones to go on, or delete"):
        module.collect(chosen(*arguments, "seed=1"))
    assert steps.stat().st_size == before
    assert collect(tmp_path, killed, *arguments).returncode == 0
    packed = []
    for root in (whole, killed):
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
        packed.append(load("pendulum/mine-v0").packed.numpy())
    np.testing.assert_array_equal(*packed)


WRONG = {
    "policy=random env=cartpole": "dataset_id is missing: give dataset_id=...",
    "dataset_id=aa/b-v0 env=cartpole": "policy is missing: give policy=...",
    "policy=nowhere dataset_id=aa/b-v0": "policy=nowhere is not there: give random, built-in",
    "policy=random dataset_id=aa/b-v0": "env is missing: choose where to play, such as env=pendulum",
    "policy=random dataset_id=nonsense env=cartpole": "dataset_id 'nonsense' is not a Minari id",
    "policy=built-in dataset_id=aa/b-v0 env=gym env.id=Acrobot-v1": "policy=built-in is for Pendulum-v1, CartPole-v1",
    "policy=/nowhere dataset_id=aa/b-v0 env=cartpole": "/nowhere is neither the folder of a run with a checkpoint",
    "policy=random dataset_id=aa/b-v0 env=none": "env=none is nowhere to play: choose another",
    "policy=random dataset_id=aa/b-v0 env=cartpole episodes=0": "episodes is 0; it must be a whole number",
    "policy=random dataset_id=aa/b-v0 env=cartpole noise=2": "noise is 2; of discrete actions it is a share",
    "policy=random dataset_id=aa/b-v0 env=cartpole noise=-1": "noise is -1; it must be a number of at least 0",
    "polcy=random": "error: there is no polcy with the options that are chosen; did you mean policy?",
}


def test_a_signal_stops_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["collect", "policy=random", "env=cartpole", "dataset_id=test/mine-v0"])
    create = export.create

    def stopped(id: str, episodes: Any, *others: Any, **about: str) -> bool:
        def interrupted() -> Any:
            yield next(episodes)
            signal.raise_signal(signal.SIGTERM)

        return create(id, interrupted(), *others, **about)

    monkeypatch.setattr(export, "create", stopped)
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 143
    assert capsys.readouterr().err.endswith("stopped: the same command goes on\n")
    assert [path.name for path in (tmp_path / "test").iterdir()] == [".collecting-mine-v0"]


BY_COMMAND = "policy=random env=cartpole", "policy=/nowhere dataset_id=aa/b-v0 env=cartpole", "polcy=random"


@pytest.mark.parametrize("wrong", BY_COMMAND)
def test_what_is_wrong_ends_in_one_line(wrong: str, tmp_path: Path) -> None:
    done = collect(tmp_path, tmp_path, *wrong.split())
    assert done.returncode == 1
    assert WRONG[wrong] in done.stdout
    assert "Traceback" not in done.stdout
    assert not list(tmp_path.iterdir())


def chosen(*overrides: str) -> dict[str, Any]:
    """The checked values of a command of collect."""
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        made = settings.values(compose("collection", list(overrides)), settings.COLLECTION)
    export.check_new(made["dataset_id"], "dataset_id")
    return made


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if wrong not in BY_COMMAND])
def test_what_is_wrong_is_said(wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.raises(UserError, match=re.escape(WRONG[wrong])) as error:
        module.collect(chosen(*wrong.split()))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_data_sets_is_not_taken_for_one_that_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    module.collect(content(dataset_id="hopper-v5/random-v0"))
    before = load("hopper-v5/random-v0").packed.numpy()
    with pytest.raises(UserError, match="hopper-v5 is a folder of other data sets: choose another dataset_id"):
        chosen("policy=random", "env=cartpole", "dataset_id=hopper-v5")
    with pytest.raises(UserError, match="another hopper-v5 is there by now"):
        module.collect(content(dataset_id="hopper-v5"))
    np.testing.assert_array_equal(load("hopper-v5/random-v0").packed.numpy(), before)
    # One that was killed while it was written, by another program, is no data set.
    (tmp_path / "test" / "mine-v0" / "data").mkdir(parents=True)
    module.collect(content())
    assert load("test/mine-v0").info.episodes == 5


def test_episodes_of_a_policy_that_has_learnt_on_do_not_mix_with_others(
    finished: Path, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    play = episode.play_seeded

    def stopped(fleet: Any, act: Any, seed: int, *names: object) -> Any:
        if names == (2,):
            raise KeyboardInterrupt
        return play(fleet, act, seed, *names)

    command = chosen(f"policy={finished}", "episodes=3", "dataset_id=mine/learning-v0")
    with monkeypatch.context() as patch:
        patch.setattr(module, "play_seeded", stopped)
        with pytest.raises(KeyboardInterrupt):
            module.collect(command)
    best = finished / "checkpoint" / "best.safetensors"
    state, metadata = checkpoint.read(best)
    state["actor.average"] += 1
    save_file(state, best, metadata={"facts": json.dumps(metadata)})
    with pytest.raises(
        UserError, match=r"has learnt on since mine/learning-v0 was begun with it: delete .* begin anew"
    ):
        module.collect(command)


def test_the_best_of_a_run_is_no_score_of_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(recorder, "REFERENCE_EPISODES", 2)
    online = ["trainer=online", "schedule=interleaved", "schedule.learning_starts=32", "trainer.env_steps=64"]
    trained(
        tmp_path / "run", *online, "schedule.update_interval=16", "env=gym", "env.id=Asking-v0", "+env.kwargs.factor=3"
    )
    best = checkpoint.best(tmp_path / "run")
    assert best is not None
    run = {"policy": str(tmp_path / "run"), "dataset_id": "mine/smaller-v0"}
    scores = []
    monkeypatch.setattr(recorder, "reference", lambda make_env, best: scores.append(best))
    module.collect(content("Asking-v0", **run))
    smaller = load("mine/smaller-v0").info.return_mean
    module.collect(content(**(run | {"dataset_id": "mine/own-v0", "env": None})))
    own = load("mine/own-v0").info.return_mean
    assert scores == [pytest.approx(smaller), pytest.approx(max(own, best[1]["best"]))]


@pytest.mark.slow
def test_a_run_and_then_the_next_learns_from_what_it_collected(cli: Cli, tmp_path: Path, datasets: Path) -> None:
    online = [
        "trainer=online", "env=cartpole", "network.hidden=[16]", "logger=jsonl", "trainer.eval_episodes=1",
        "schedule.samples_per_iteration=256", "schedule.critic_steps=5", "schedule.actor_steps=10",
        "trainer.compile=false", "trainer.env_steps=1536", "trainer.checkpoint_interval=256",
    ]  # fmt: skip
    record = "recorder.dataset_id=mine/online-v0"
    process = start(tmp_path, datasets, *online, record, "collect=minari", f"hydra.run.dir={tmp_path}/run")
    metrics = tmp_path / "run" / "checkpoint"
    deadline = time.monotonic() + 60
    while not len(list(metrics.glob("*"))) > 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (datasets / "mine" / "online-v0").exists()
    done = cli(f"resume={tmp_path}/run")
    assert done.returncode == 0, done.stdout
    assert "train on it: python -m awr_exp.main dataset=minari dataset.id=mine/online-v0" in done.stdout
    whole = cli(*online, "recorder.dataset_id=mine/whole-v0")
    assert whole.returncode == 0, whole.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        both = [load(f"mine/{name}-v0") for name in ("online", "whole")]
    np.testing.assert_array_equal(both[0].packed.numpy(), both[1].packed.numpy())
    about = json.loads((datasets / "mine" / "online-v0" / "data" / "metadata.json").read_text())
    assert about["algorithm_name"] == "awr"
    learnt = cli(*SMALL, "dataset=minari", "dataset.id=mine/online-v0")
    assert learnt.returncode == 0, learnt.stdout
    refused = cli(*online, record)
    assert refused.returncode == 1
    assert "data set 'mine/online-v0' is in" in refused.stdout
    for wrong, message in {
        "recorder.dataset_id=aa/b-v0 recorder.checkpoints=[5000]": "recorder.checkpoints has 5000, but the run ends",
        "trainer=offline dataset=pendulum_mixed recorder.dataset_id=aa/b-v0": "since trainer=offline collects nothing",
    }.items():
        with pytest.raises(UserError, match=re.escape(message)):
            composed(*(online if "offline" not in wrong else SMALL), *wrong.split())
    done = cli("-m", *online, "env=cartpole,pendulum", "recorder.dataset_id=mine/both-v0")
    assert done.returncode == 1
    assert "several runs record 'mine/both-v0': let recorder.dataset_id differ, such as" in done.stdout
    assert "training" not in done.stdout
    assert "Traceback" not in done.stdout


class Asking(gymnasium.Env):
    """Ten steps, each rewarded by `factor` times the sum of what was asked for; fails after `most` episodes of all."""

    observation_space = gymnasium.spaces.Box(0, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    most = math.inf

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def reset(self, **options: Any) -> Any:
        Asking.most -= 1
        if Asking.most < 0:
            raise RuntimeError("no licence")
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.full(1, self.count, np.float32), float(self.factor * action.sum()), False, self.count == 10, {}


gymnasium.register("Asking-v0", "tests.test_collect:Asking")


def trained(folder: Path, *options: str) -> dict[str, float]:
    """The last metrics of a run that leaves what one from the command line does."""
    small = ["network.hidden=[16]", "logger=jsonl", "trainer.eval_episodes=1", "trainer.compile=false"]
    cfg = composed(*options, *small)
    (outcome,) = train([cfg], [folder])
    assert outcome.error is None
    (folder / ".hydra").mkdir()
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return dict(outcome.metrics)


@pytest.mark.slow
def test_actions_that_are_played_as_they_are_become_data_that_are_learnt_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded, and played by the run that collected and by the one that has learnt from that."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr(recorder, "REFERENCE_EPISODES", 2)
    asking = ["env=gym", "env.id=Asking-v0", "+env.kwargs.factor=3", "env.clip_actions=false"]
    steps = ["trainer.env_steps=256", "trainer.replay_size=400", "trainer.envs=4", "schedule.learning_starts=32"]
    online = ["trainer=online", "schedule=interleaved", *asking, *steps, "recorder.dataset_id=mine/online-v0"]
    trained(tmp_path / "online", *online)
    offline = ["experiment=smoke", "dataset=minari", "dataset.id=mine/online-v0"]
    assert trained(tmp_path / "offline", *offline)["eval/length_mean"] == 10
    for name in ("online", "offline"):
        run = {"policy": str(tmp_path / name), "env": None, "sample": True, "dataset_id": f"mine/by-{name}-v0"}
        module.collect(content(**run))
    for name in ("online", "by-online", "by-offline"):
        data = load(f"mine/{name}-v0")
        assert not from_dataset(data.info, data.spec).clip_actions
        batch = data.sample(torch.arange(len(data))[None])
        assert data.spec == Spec(1, 2, None, (-math.inf,) * 2, (math.inf,) * 2)
        assert data.info.env_spec.kwargs == {"factor": 3}
        assert abs(batch.action).max() > 1
        torch.testing.assert_close(batch.reward, 3 * batch.action.sum(-1))


def asking(data: Any, spec: Any, factor: float) -> Any:
    return partial(gymnasium.make, "Asking-v0", factor=factor)


def test_the_policy_of_a_run_plays_in_all_that_its_environment_was(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    monkeypatch.setattr(recorder, "REFERENCE_EPISODES", 2)
    online = [
        "trainer=online",
        "schedule=interleaved",
        "schedule.learning_starts=32",
        "trainer.env_steps=64",
        "schedule.update_interval=16",
    ]
    target = "tests.test_collect.asking"
    own = ["env=none", f"env._target_={target}", "+env.factor=4"]
    trained(tmp_path / "own", *online, *own)
    run = {"policy": str(tmp_path / "own"), "env": None, "dataset_id": "mine/own-v0"}
    module.collect(content(**run, trust=[target]))
    data = load("mine/own-v0")
    batch = data.sample(torch.arange(len(data))[None])
    torch.testing.assert_close(batch.reward, 4 * batch.action.sum(-1))
    trained(tmp_path / "vectorized", *online, "env=cartpole", "env.vectorized=true")
    module.collect(content(policy=str(tmp_path / "vectorized"), env=None, dataset_id="mine/vectorized-v0"))
    trained(tmp_path / "nowhere", "experiment=smoke", "env=none", "trainer.updates=1")
    with pytest.raises(UserError, match="env=none is nowhere to play: choose another, such as env=pendulum"):
        module.collect(content(policy=str(tmp_path / "nowhere"), env=None, dataset_id="mine/none-v0"))


def test_every_collect_option_is_found() -> None:
    assert {path.stem for path in (config.CONF / "collect").glob("*.yaml")} == {"minari", "none"}
