"""Real command lines in a process of their own: what a user types, sees and finds on disk."""

import json
import logging.config
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from safetensors.torch import load_file, save_file

import awr_exp
from awr_exp import arguments, command, config, messages, results, surroundings
from awr_exp.errors import UserError
from awr_exp.training import checkpoint
from awr_exp.training.rows import read
from tests.conftest import SMALL, Cli, composed, start, train, trainer_of


def only_run(folder: Path) -> Path:
    (run,) = folder.glob("outputs/runs/*/*")
    return run


def final_state(run: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((run / "checkpoint").glob("update_*"))[-1])


def rows(run: Path) -> list[dict[str, Any]]:
    """All metrics but those that a clock measures."""
    return [row for row in read(run) if not row["name"].endswith("per_second")]


def test_a_run_leaves_what_the_readme_promises(cli: Cli, tmp_path: Path) -> None:
    done = cli(*SMALL, "logger=[jsonl,wandb]", "baseline=bc", "agent.beta=0.05")
    assert done.returncode == 0, done.stdout
    run = only_run(tmp_path)
    for name in (
        ".hydra/config.yaml",
        "train.log",
        "metrics.jsonl",
        "curves.png",
        "origin.json",
        "baseline/metrics.jsonl",
        "wandb",
    ):
        assert (run / name).exists(), name
    names = {row["name"] for row in read(run)}
    for name in [
        "value_loss",
        "actor_loss",
        "mean_advantage",
        "std_advantage",
        "mean_weight",
        "max_weight",
        "ess",
        "clipped",
        "zero_weight",
        "mean_value",
        "explained_variance",
        "entropy",
        "kl_behavior",
        "updates_per_second",
    ]:
        assert f"train/{name}" in names
    for name in [
        "return_mean",
        "return_recent",
        "return_std",
        "return_min",
        "return_max",
        "length_mean",
        "normalized_score",
    ]:
        assert f"eval/{name}" in names
    for text in (
        "data set awr_exp/pendulum-mixed-v0",
        "baseline bc",
        "\nawr ",
        str(run.relative_to(tmp_path)),
        "wandb sync",
    ):
        assert text in done.stdout
    assert len(list((run / "checkpoint").glob("update_*"))) == 2

    policy = awr_exp.load(run)
    obs = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 5.0]])
    actions = policy(obs)
    assert actions.shape == (2, 1)
    assert (np.abs(actions) <= 2).all()
    assert np.allclose(policy(obs[1]), actions[1], atol=1e-6)
    assert not np.array_equal(policy(obs, deterministic=False), policy(obs, deterministic=False))
    with pytest.raises(UserError, match="the policy takes"):
        policy(np.zeros(4))


def test_discrete_actions_and_whole_episode_targets(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    chosen = ["dataset=cartpole_mixed", "advantage=gae", "weighting=normalized", "network.layer_norm=true"]
    (run,) = train([composed(*SMALL, *chosen)], [tmp_path / "run"])
    assert run.error is None
    assert awr_exp.load(tmp_path / "run")(np.zeros(4)).dtype == np.int64


def test_a_stopped_run_resumes_to_the_bit(tmp_path: Path, datasets: Path) -> None:
    """Multi-step targets and a stop between reports: sums and targets have to survive too."""
    options = [
        *SMALL,
        "advantage=td_lambda",
        "trainer.updates=320",
        "trainer.refresh_interval=70",
        "trainer.checkpoint_interval=30",
        "dataset.max_transitions=2000",
    ]
    folders = {name: tmp_path / name for name in ("whole", "stopped")}
    for folder in folders.values():
        folder.mkdir()
    whole = start(folders["whole"], datasets, *options)
    assert whole.wait(240) == 0
    command = options
    for number, updates in ((signal.SIGTERM, 30), (signal.SIGKILL, 150)):
        process = start(folders["stopped"], datasets, *command)
        deadline = time.monotonic() + 100
        while not any(int(path.stem[-6:]) >= updates for path in folders["stopped"].rglob("update_*.safetensors")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate(timeout=100)
        assert process.returncode == (143 if number == signal.SIGTERM else -9), output
        run = only_run(folders["stopped"])
        assert (f"resume={run}" in output) == (number == signal.SIGTERM)
        command = [f"resume={run}"]
    resumed = start(folders["stopped"], datasets, *command)
    output, _ = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, output
    expected = final_state(only_run(folders["whole"]))
    for part, value in final_state(run).items():
        assert torch.equal(value, expected[part]), part
    assert rows(run) == rows(only_run(folders["whole"]))


@pytest.mark.slow
def test_a_terminal_that_cannot_be_written_costs_what_would_be_said_there(tmp_path: Path, datasets: Path) -> None:
    env = os.environ | {"MINARI_DATASETS_PATH": str(datasets)}
    command = [sys.executable, "-m", "awr_exp.main", *SMALL, "trainer.updates=100", f"hydra.run.dir={tmp_path}/run"]
    with Path("/dev/full").open("w") as full:
        subprocess.run(command, cwd=tmp_path, env=env, stdout=full, stderr=subprocess.PIPE, timeout=100, check=False)
    assert results.read(tmp_path / "run").status == "finished"
    assert (tmp_path / "run" / "curves.png").exists()


def test_a_folder_takes_one_run_only(cli: Cli, finished: Path) -> None:
    place = f"hydra.run.dir={finished}"
    config = (finished / ".hydra" / "config.yaml").read_text()
    other = cli(*SMALL, place, "agent.beta=0.7")
    assert other.returncode == 1
    assert re.fullmatch(r"error: \S+/run was started as .*eval_episodes=1: give the same command .*\n", other.stdout)
    assert (finished / ".hydra" / "config.yaml").read_text() == config
    again = cli(*SMALL, place)
    assert again.returncode == 0
    assert again.stdout == f"nothing left to train: {finished}\n"


def test_a_run_that_diverges_between_reports_says_so(cli: Cli) -> None:
    done = cli(*SMALL, "agent.actor_lr=1e30", "trainer.report_interval=100", "trainer.eval_interval=30")
    assert done.returncode == 1
    assert "error: training diverged before update 30: " in done.stdout
    assert "go on with: python -m awr_exp.main resume=" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_resume_goes_on_with_other_settings_but_not_with_other_data_networks_and_strangers(
    cli: Cli, finished: Path, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    run = finished
    for change, message in {
        "dataset.max_transitions=500": "trained on other data",
        "network.hidden=[24]": "was trained with network.hidden=[16], not [24]: give the same",
        "network.activation=tanh": "was trained with network.activation=relu, not tanh: give the same",
    }.items():
        with pytest.raises(UserError, match=re.escape(message)):
            train([composed(*SMALL, change)], [run])
    refused(cli(f"resume={run}", "agent.beta=0"), "agent.beta is 0; it must be a positive")
    refused(cli(f"resume={run}", "experiment=online_pendulum"), "an experiment cannot be chosen for a run")
    config = run / ".hydra" / "config.yaml"
    content = config.read_text()
    done = cli(f"resume={run}", "optimizer=momentum", "trainer.updates=250")
    assert done.returncode == 0, done.stdout
    assert "trained with another optimizer, whose moments start anew" in done.stdout
    assert max(row["update"] for row in read(run)) == 250
    assert config.read_text() == content
    changed = {"trainer.updates": "250", "optimizer._target_": "awr_exp.math.optimizers.momentum"}
    assert results.changed(run) == changed
    done = cli(f"resume={run}", "trainer.updates=260")
    assert (
        "it was resumed with optimizer._target_=awr_exp.math.optimizers.momentum before, and now without" in done.stdout
    )
    assert results.changed(run) == changed
    config.write_text(content.replace("awr_exp.agents.awr.AWR", "os.system"))
    done = cli(f"resume={run}")
    assert done.returncode != 0
    assert "wants to call 'os.system'" in done.stdout
    # A call that only shows once an interpolation is resolved.
    hidden = "${oc.create:'{_target_: os.system}'}"
    config.write_text(content.replace("weighting: ${weighting}", f'weighting: "{hidden}"'))
    done = cli(f"resume={run}")
    assert done.returncode != 0
    assert ".hydra/config.yaml" in done.stdout
    assert "Traceback" not in done.stdout
    done = cli(f"resume={tmp_path}/nowhere")
    assert done.returncode != 0
    assert "is not the folder of a run" in done.stdout


def test_damaged_checkpoints_cost_only_themselves(
    finished: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    _, newest = sorted((finished / "checkpoint").glob("update_*"))
    newest.write_bytes(newest.read_bytes()[:100])
    (outcome,) = train([composed(*SMALL)], [finished])
    assert outcome.error is None
    assert "cannot be read" in caplog.text
    for path in (finished / "checkpoint").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="start the run anew"):
        train([composed(*SMALL)], [finished])
    with pytest.raises(UserError, match="can be read"):
        awr_exp.load(finished, which="latest")


WRONG = {
    "agent.beta=-1": "agent.beta is -1; it must be a positive, finite number",
    "agent.beta=nan": "agent.beta is NaN",
    "agent.beta=inf": "agent.beta is Infinity",
    "agent.beta=small": 'agent.beta is "small"',
    "agent.beta=true": "agent.beta is true",
    "agent.gamma=1.5": "agent.gamma is 1.5; it must be a number from 0 to 1",
    "advantage.lam=2": "advantage.lam is 2; it must be a number from 0 to 1",
    "agent.max_weight=0.5": "it must be a finite number of at least 1",
    "agent.value_iters=0": "agent.value_iters is 0; it must be a whole number of at least 1",
    "agent.actor_iters=1.5": "agent.actor_iters is 1.5",
    "agent.actor_lr=0": "agent.actor_lr is 0",
    "agent.max_grad_norm=-1": "or null",
    "network.hidden=[]": "a list of widths",
    "network.activation=reluu": "one of relu, tanh",
    "dataset.top_percent=0": "dataset.top_percent is 0",
    "trainer.batch_size=0": "trainer.batch_size is 0",
    "trainer.compile=1": "one of auto, true, false",
    "device=gpu": "auto, cpu, cuda or cuda:<number>",
    "seed=-3": "seed is -3",
    "dataset=minari": "dataset.id is missing: give dataset.id=...",
    "agent.betaa=1": "error: there is no agent.betaa with the options that are chosen; did you mean agent.beta?\n",
    "trainer=online env=cartpole trainer.updates=3": "chosen: it is a setting of trainer=offline\n",
    "agent.value_iters=123456789012345678901234567890": "agent.value_iters is 123456789012345678901234567890, which is",
    "dataset.reward_scale=123456789012345678901234567890": "reward_scale is 123456789012345678901234567890, which is",
    "device=cuda:99999999999999999999": "auto, cpu, cuda or cuda:<number>",
    "trainer._target_=awr_exp.math.weights.constant": "is none of ours for that: choose another trainer",
    "weighting._target_=awr_exp.envs.make.gym": "is none of ours for that: choose another weighting",
    "trainer=online env=cartpole trainer.schedule=null": "schedule is missing: choose schedule=<one of interl",
    "logger.wandb._target_=null": "logger.wandb._target_ is null",
    "~logger.wandb +logger.wandb={}": "logger.wandb is {}; it must be a part with a _target_, or left out",
    "callback=video callback.video._target_=null": "callback.video._target_ is null",
    "callback=video callback.video.interval=0": "callback.video.interval is 0; it must be a whole number of at least 1",
    "+agent.foo=1": "agent.foo is not a setting of awr_exp",
    "+agent.betta=1": "agent.betta is not a setting of awr_exp: remove it; did you mean agent.beta?",
    "+beta=3": "beta is not a setting of awr_exp: remove it; did you mean agent.beta?",
    "+agnt.beta=3": "agnt is not a setting of awr_exp: remove it; did you mean agent?",
    "+sweep.beta=3": "sweep.beta is not a setting of awr_exp",
    "+agent.optimizer.beta=3": "agent.optimizer.beta is not a setting of awr_exp",
    "trainer=finetune +trainer.pretrain.beta=3": "trainer.pretrain.beta is not a setting of awr_exp",
    "+baseline.actor_lr=3": 'baseline is {"actor_lr": 3}, which has no _target_',
    "agent=bc +agent.beta=1": "agent.beta is not a setting of the agent that is chosen",
    "threads=100000": "threads is 100000; it must be a whole number from 1 to 1024",
    "head._target_=[a]": 'head._target_ is ["a"]; it must be the dotted name of what is called',
    "head._target_=3": "head._target_ is 3; it must be the dotted name",
    "head._target_=null": "head._target_ is null; it must be the dotted name",
    "head._partial_=3": "head._partial_ is 3; it must be true or false",
    "resume=[a]": 'resume is ["a"]; it must be a text, or null',
    "hydra.run.dir=/dev/null/x": "error: /dev/null/x cannot be written: Not a directory; choose another hydra.run.dir",
    "+sweep=betta": "did you mean beta?",
    "play x": "error: there is no command 'play': there are report, list, ",
    "+agent.beta=1": "error: agent.beta is a setting already: leave out the +",
    "+experiment=nonsense": "choose experiment=<one of antmaze_cal_ql, ",
    "agent.beta=[": "agent.beta=[ cannot be read: close what it opens",
    "weighting=expclip": "exp_clip",
    "weighting=null": "choose weighting=<one of adaptive_ess, adaptive_kl, conditioned, constant, exp_clip,",
    "env=nonsense": "error: env=nonsense: choose env=<one of ant, cartpole, ",
    "~network": "network",
    "resume=nowhere": "is not the folder of a run",
    "dataset=none": "trainer=offline needs a data set: choose dataset=... or trainer=online",
    "trainer=online dataset=cartpole_mixed": "cartpole_mixed has no effect, since trainer=online collects its own data",
    "trainer=online env=cartpole baseline=bc": "since trainer=online has no data set for a baseline",
    "schedule=interleaved": "has no effect, since the trainer that is chosen has no schedule: leave it out, or choose",
    "trainer=online trainer.envs=0": "trainer.envs is 0; it must be a whole number of at least 1",
}


def refused(done: "subprocess.CompletedProcess[str]", message: str) -> None:
    """It ended with this message, and with no traceback."""
    assert done.returncode != 0
    assert message in done.stdout, done.stdout
    assert "Traceback" not in done.stdout


BY_COMMAND = (
    "agent.beta=-1", "dataset=minari", "agent.betaa=1", "trainer=online env=cartpole trainer.updates=3",
    "+agent.beta=1", "+experiment=nonsense", "agent.beta=[", "weighting=expclip", "weighting=null", "env=nonsense",
    "~network", "resume=nowhere", "resume=[a]", "hydra.run.dir=/dev/null/x", "+sweep=betta", "play x",
)  # fmt: skip
"""Where Hydra or the command line has a say. The others are `check`'s alone."""


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(wrong, marks=pytest.mark.long if place % 2 else ())
        for place, wrong in enumerate(wrong for wrong in WRONG if wrong not in BY_COMMAND)
    ],
)
def test_a_wrong_value_is_named(wrong: str) -> None:
    with pytest.raises(UserError, match=re.escape(WRONG[wrong])) as error:
        composed(*wrong.split())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", BY_COMMAND)
def test_a_wrong_setting_is_answered_before_anything_is_made(cli: Cli, tmp_path: Path, wrong: str) -> None:
    done = cli(*wrong.split())
    refused(done, WRONG[wrong])
    assert done.stdout.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


OPTIONS = {
    "-x": "there is no option -x: --hydra-help lists them",
    "--cfg": "argument --cfg/-c: expected one argument",
    "--cfg nonsense": "argument --cfg/-c: invalid choice: 'nonsense' (choose from",
    "agent=[awr,bc]": "agent=[awr,bc]: choose agent=<one of awac, awr, bc, ",
}


@pytest.mark.parametrize("wrong", OPTIONS)
def test_a_wrong_option_is_answered_in_one_line(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        arguments.understood(wrong.split())
    assert str(stop.value).startswith(f"error: {OPTIONS[wrong]}")
    assert "".join(capsys.readouterr()) == ""


FOLDERS = {
    "hydra.run.dir=3": "hydra.run.dir is 3; it must be a folder, such as runs/3",
    "hydra.run.dir=''": 'hydra.run.dir is ""; it must be a folder',
    "hydra.run.dir=${x}": "Interpolation key 'x' not found",
    "resume=${x}": "Interpolation key 'x' not found",
    "device=${x}": "Interpolation key 'x' not found",
}


@pytest.mark.parametrize("wrong", FOLDERS)
def test_a_folder_that_is_none_is_answered_in_one_line(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    composed()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", [wrong], return_hydra_config=True)
    with pytest.raises(SystemExit, match=re.escape(f"error: {FOLDERS[wrong]}")):
        command.Check().on_run_start(cfg)
    assert not list(tmp_path.iterdir())


UNKNOWN = {
    "agnt=awr": "there is no agnt with the options that are chosen; did you mean agent?",
    "beta=3": "did you mean agent.beta?",
    "~agent.betta": "did you mean agent.beta?",
    "nothing.like.it=3": "there is no nothing.like.it with the options that are chosen: --help lists them",
    "hydra/launcher=fussed": "or leave it out; did you mean fused?",
    "hydra.launcher.viaa=joblib": "did you mean hydra.launcher.via?",
    "hydra.run.dir=\u00fcber": "or put its value into quotes",
    "resume=/a=b,c/run": "resume=/a=b,c/run cannot be read: close what it opens, or put its value into quotes",
    "agent.beta=intervall(1,2)": "Unknown function 'intervall' Available: bool,choice,",
    "agent.beta": "'agent.beta' is no setting: write name=value, such as agent.beta=0.05",
}


@pytest.mark.parametrize("wrong", UNKNOWN)
def test_a_name_that_is_not_there_says_what_was_meant(wrong: str) -> None:
    with initialize_config_dir(str(config.CONF), version_base="1.3"), pytest.raises(HydraException) as error:
        compose("config", [wrong])
    assert UNKNOWN[wrong] in messages.said(error.value)


def test_what_ends_a_command_before_it_trains_is_one_line() -> None:
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    # Whoever runs the tests in the background has them ignore some.
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        for number in usual:
            with pytest.raises(SystemExit) as stopped, surroundings.interruptible():
                signal.raise_signal(number)
            assert stopped.value.code == 128 + number
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        for number, old in before.items():
            signal.signal(number, old)
    handler = {"class": "logging.FileHandler", "filename": "/dev/null/a/b.log"}
    wrong = r"error: hydra\.job_logging: Unable to configure handler 'file' .*a/b\.log"
    with pytest.raises(SystemExit, match=wrong), messages.plain_errors():
        logging.config.dictConfig({"version": 1, "handlers": {"file": handler}, "root": {"handlers": ["file"]}})


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    line = f'cd {tmp_path}/gone && rmdir ../gone && exec "{sys.executable}" -m awr_exp.main seed=1'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("error: the current folder is gone: change to one that is there\n")


def test_a_part_of_the_configuration_is_shown(cli: Cli) -> None:
    done = cli("--cfg", "job", "-p", "agent", "agent.beta=3")
    assert done.returncode == 0
    assert "# @package agent\n" in done.stdout
    assert "\nbeta: 3\n" in done.stdout


ONLINE = [
    "trainer=online", "env=cartpole", "network.hidden=[16]", "logger=jsonl", "trainer.eval_episodes=1",
    "schedule.samples_per_iteration=64", "schedule.critic_steps=5", "schedule.actor_steps=10", "trainer.compile=false",
    "trainer.replay_size=400", "trainer.report_interval=128", "trainer.eval_interval=256",
]  # fmt: skip
WRONG_ONLINE = {
    "env=from_dataset": "env=from_dataset needs a data set: choose an environment such as env=pendulum",
    "env=none": "there is nothing to learn from: choose a data set or an environment",
    "agent=bc": "trainer=online needs an agent that learns values: choose agent=awr",
    "schedule=interleaved trainer.env_steps=500": "since schedule.learning_starts=1000: lower it, or give more steps",
    "head=gaussian": "head=Gaussian needs continuous actions; this task has 2 discrete ones",
    "env=gym env.id=Nowhere-v0": "environment 'Nowhere-v0' cannot be made",
    "schedule.overlap=true": "schedule.overlap=true collects in other processes: give trainer.workers=1 or more",
    "env.vectorized=true env.id=MountainCar-v0": "'MountainCar-v0' has no vectorised form of its own",
    "trainer.workers=-1": "trainer.workers is -1; it must be a whole number of at least 0",
}


@pytest.mark.parametrize("wrong", WRONG_ONLINE)
def test_what_only_the_environment_can_tell_is_said_in_one_line(wrong: str, tmp_path: Path) -> None:
    phased = [option for option in ONLINE if not ("interleaved" in wrong and option.startswith("schedule."))]
    with pytest.raises(UserError, match=re.escape(WRONG_ONLINE[wrong])) as error:
        train([composed(*phased, *wrong.split())], [tmp_path])
    assert "\n" not in str(error.value)


def test_a_run_that_cannot_be_built_begins_no_record_of_itself(cli: Cli, tmp_path: Path) -> None:
    refused(cli(*ONLINE, "logger=wandb", "agent=bc"), WRONG_ONLINE["agent=bc"])
    assert not list(tmp_path.rglob("*wandb*"))


@pytest.mark.slow
def test_a_killed_worker_costs_a_run_nothing(tmp_path: Path, datasets: Path) -> None:
    options = [*ONLINE, "advantage=td_lambda", "trainer.env_steps=2560", "trainer.workers=2"]
    values = []
    for folder, kills in (("whole", False), ("killed", True)):
        process = start(tmp_path, datasets, *options, f"hydra.run.dir={tmp_path / folder}")
        if kills:
            trainer = trainer_of(process, tmp_path / folder)
            children = Path(f"/proc/{trainer}/task/{trainer}/children").read_text().split()
            workers = [pid for pid in children if "envs.worker" in Path(f"/proc/{pid}/cmdline").read_text()]
            assert len(workers) == 2
            os.kill(int(workers[1]), signal.SIGKILL)
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
        assert ("a worker process died: another one takes its environments" in output) == kills
        values.append(rows(tmp_path / folder))
    assert values[0] == values[1]


@pytest.mark.slow
def test_an_online_run_killed_resumes_to_the_bit(tmp_path: Path, datasets: Path) -> None:
    """With a replay that is full, open episodes, and a kill between reports."""
    options = [*ONLINE, "advantage=td_lambda", "trainer.env_steps=3840", "trainer.checkpoint_interval=192"]
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for folder in folders.values():
        folder.mkdir()
    whole = start(folders["whole"], datasets, *options)
    assert whole.wait(240) == 0
    killed = start(folders["killed"], datasets, *options)
    deadline = time.monotonic() + 100
    while len(rows(run)) < 100 if (run := next(folders["killed"].glob("outputs/runs/*/*"), None)) else True:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.kill()
    killed.communicate(timeout=100)
    resumed = start(folders["killed"], datasets, f"resume={run}")
    output, _ = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, output
    assert "going on from environment step" in output
    assert "could not be brought back" not in output
    expected = final_state(only_run(folders["whole"]))
    for name, value in final_state(run).items():
        assert torch.equal(value, expected[name]), name
    assert rows(run) == rows(only_run(folders["whole"]))
    assert {"collect/return_mean", "eval/return_mean", "train/ess"} <= {row["name"] for row in rows(run)}
    assert {row["env_steps"] for row in rows(run) if row["name"] == "train/ess"} == set(range(128, 3841, 128))


@pytest.mark.slow
def test_an_online_sweep_is_one_group(cli: Cli, tmp_path: Path) -> None:
    done = cli("-m", *ONLINE, "agent.beta=0.1,1.0", "trainer.env_steps=512", f"hydra.sweep.dir={tmp_path}/sweep")
    assert done.returncode == 0, done.stdout
    assert "jobs to train: 2, groups: 1," in done.stdout
    assert [run.status for run in results.runs(tmp_path / "sweep")] == ["finished", "finished"]
    more = cli(f"resume={tmp_path}/sweep/1", "trainer.env_steps=640")
    assert more.returncode == 0, more.stdout
    assert results.read(tmp_path / "sweep" / "1").env_steps == 640


WRONG_LATER = {
    "agent._target_=os.system": "os.system cannot be built",
    "agent._target_=nowhere.Nothing": "'nowhere.Nothing' cannot be found",
    "head=categorical": "head=categorical needs discrete actions",
    "env=cartpole": "does not fit data set",
    "env=gym env.id=Nowhere-v0": "environment 'Nowhere-v0' cannot be made",
    "dataset=minari dataset.id=no/such-v0": "data set 'no/such-v0' is not in",
    "dataset=minari dataset.id=nonsense": "is not a Minari id",
    "device=cuda:99": "device=cuda:99 is not there",
}


@pytest.mark.parametrize("wrong", WRONG_LATER)
def test_what_only_the_data_can_tell_is_said_in_one_line(
    wrong: str, tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    with pytest.raises(UserError, match=re.escape(WRONG_LATER[wrong])) as error:
        train([composed(*SMALL, *wrong.split())], [tmp_path])
    assert "\n" not in str(error.value)


def test_what_only_the_data_can_tell_ends_a_command(cli: Cli) -> None:
    refused(cli(*SMALL, "head=categorical"), WRONG_LATER["head=categorical"])


@pytest.mark.parametrize("argument", ["--help", "agent.beta=-1", "agent.betaa=1", "list"])
def test_help_and_mistakes_never_wait_for_torch(argument: str, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.argv = ['main', sys.argv[1]]\nfrom awr_exp.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'wandb', 'gymnasium'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, argument], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "Warning" in done.stderr) == (0, False), done.stderr


@pytest.mark.slow
def test_what_would_change_nothing_of_a_run_that_has_ended_is_said_and_not_kept(finished: Path, cli: Cli) -> None:
    done = cli(f"resume={finished}", "agent.max_weight=5", "evaluate=fqe", "evaluate.updates=10")
    assert done.returncode == 0, done.stdout
    assert "the run has ended, and agent.max_weight=5 changes nothing: to go on, make it longer, too" in done.stdout
    assert "agent.max_weight" not in results.changed(finished)
    longer = cli(f"resume={finished}", "agent.max_weight=5", "trainer.updates=300")
    assert longer.returncode == 0, longer.stdout
    assert "changes nothing" not in longer.stdout
    assert results.changed(finished)["agent.max_weight"] == "5"


def test_a_policy_of_a_stranger_is_not_called(finished: Path, tmp_path: Path) -> None:
    found = checkpoint.latest(finished)
    assert found is not None
    state, metadata = found
    metadata["head"]["_target_"] = "os.system"
    save_file(state, tmp_path / "evil.safetensors", metadata={"facts": json.dumps(metadata)})
    with pytest.raises(UserError, match=r"wants to call 'os\.system'"):
        awr_exp.load(tmp_path / "evil.safetensors")


@pytest.mark.slow
def test_the_default_run_beats_its_data_and_behaviour_cloning(cli: Cli, tmp_path: Path) -> None:
    done = cli("baseline=bc", "logger=jsonl")
    assert done.returncode == 0, done.stdout
    last = {row["name"]: row["value"] for row in read(only_run(tmp_path))}
    assert last["eval/return_mean"] > max(last["dataset/return_mean"], last["baseline/return_mean"]) + 400
    assert last["eval/normalized_score"] >= 0.93
