"""The fused launcher by real command lines: what a sweep leaves, how it fails, and how it goes on."""

import itertools
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import awr_exp
from awr_exp import results
from awr_exp.training import checkpoint
from awr_exp.training.rows import read
from tests.conftest import SMALL, Cli, start

BETAS, SEEDS = ("0.1", "1.0"), ("0", "1")
GRID = [*SMALL, f"agent.beta={','.join(BETAS)}", f"seed={','.join(SEEDS)}"]


def only_sweep(folder: Path) -> Path:
    (sweep,) = folder.glob("outputs/sweeps/*/*")
    return sweep


def jobs(sweep: Path) -> list[Path]:
    return sorted(sweep.glob("[0-9]*"), key=lambda path: int(path.name))


def result(job: Path) -> dict[str, object]:
    content = json.loads((job / "result.json").read_text())
    assert isinstance(content, dict)
    return content


def files(job: Path) -> set[str]:
    return {re.sub(r"wandb/.*", "wandb", str(path.relative_to(job))) for path in job.rglob("*") if path.is_file()}


def test_jobs_are_as_if_each_had_run_alone(cli: Cli, tmp_path: Path) -> None:
    options = [*GRID, "logger=[jsonl,wandb]", "trainer.updates=100", "trainer.eval_interval=50"]
    fused = cli("-m", *options, f"hydra.sweep.dir={tmp_path}/fused")
    assert fused.returncode == 0, fused.stdout
    assert "groups: 1," in fused.stdout
    members = [OmegaConf.load(job / ".hydra" / "config.yaml") for job in jobs(tmp_path / "fused")]
    assert [(str(cfg.agent.beta), str(cfg.seed)) for cfg in members] == list(itertools.product(BETAS, SEEDS))
    basic = cli("-m", *options, "seed=1", f"hydra.sweep.dir={tmp_path}/basic", "hydra/launcher=basic")
    assert basic.returncode == 0, basic.stdout
    for job, alone in zip(jobs(tmp_path / "fused")[1::2], jobs(tmp_path / "basic"), strict=True):
        cfg = OmegaConf.load(job / ".hydra" / "config.yaml")
        assert cfg == OmegaConf.load(alone / ".hydra" / "config.yaml")
        assert files(job) == files(alone)
        mine, its = read(job), read(alone)
        assert [(row["update"], row["name"]) for row in mine] == [(row["update"], row["name"]) for row in its]
        # Up to rounding at the start; later rounding grows.
        for row, other in zip(mine, its, strict=True):
            if row["update"] == mine[-1]["update"] // 2 and row["name"] != "train/updates_per_second":
                assert row["value"] == pytest.approx(other["value"], rel=2e-2, abs=2e-3), row["name"]
        obs = np.array([1.0, 0.0, 0.0])
        assert np.allclose(awr_exp.load(job)(obs), awr_exp.load(alone)(obs), atol=0.05)
        # Nothing of the others in its log.
        said = (job / "train.log").read_text().replace("agent.beta", "")
        assert "beta" not in re.sub(r"beta [\d.]+ is|a smaller beta", "", said)
    (record,) = (tmp_path / "fused" / "0").glob("wandb/offline-run-*/*.wandb")
    text = record.read_bytes().decode(errors="ignore")
    # Its group, the sweep, and its name.
    assert f"{tmp_path.name}/fused" in text
    assert "agent.beta=0.1,experiment=smoke" in text
    table = fused.stdout.partition("job ")[2]
    returns = [float(value) for value in re.findall(r"(-\d+\.\d) +finished", table)]
    assert len(returns) == 4
    assert returns == sorted(returns, reverse=True)
    # A member goes on as any run does.
    more = cli(f"resume={tmp_path}/fused/2", "trainer.updates=150")
    assert more.returncode == 0, more.stdout
    assert read(tmp_path / "fused" / "2")[-1]["update"] == 150


def test_failing_members_fail_alone(cli: Cli, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "0").write_text("a file where the folder should be")
    done = cli("-m", *SMALL, "env=none", "agent.actor_lr=1e-3,1e30,1e-4", f"hydra.sweep.dir={sweep}")
    assert done.returncode == 1
    assert "sweep/0 cannot be written" in done.stdout
    assert re.search(r"agent.actor_lr=1e\+30 +– +failed: training diverged", done.stdout), done.stdout
    assert re.search(r"agent.actor_lr=0.001 +– +failed: .*sweep/0 cannot be written", done.stdout), done.stdout
    assert result(sweep / "1")["status"] == "failed"
    assert "diverged" in (sweep / "1" / "train.log").read_text()
    assert result(sweep / "2")["status"] == "finished"
    assert "diverged" not in (sweep / "2" / "train.log").read_text()
    assert "Traceback" not in done.stdout


def test_what_cannot_be_stacked_forms_another_group(cli: Cli, tmp_path: Path) -> None:
    options = [
        "network.hidden=[8],[16]",
        "agent.beta=0.1,1.0,2.0",
        "hydra.launcher.max_members=2",
        "trainer.updates=20",
    ]
    done = cli("-m", *SMALL, "env=none", *options)
    assert done.returncode == 0, done.stdout
    # Three of each width, of which two fit a group.
    assert "jobs to train: 6, groups: 4," in done.stdout
    found = jobs(only_sweep(tmp_path))
    assert [OmegaConf.load(job / ".hydra" / "config.yaml").agent.beta for job in found] == [0.1, 1.0, 2.0] * 2
    assert all((job / "metrics.jsonl").exists() for job in found)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_an_interrupted_sweep_goes_on(tmp_path: Path, datasets: Path, cli: Cli, number: int) -> None:
    """Two groups, stopped in the second: the first is not trained again."""
    sweep = tmp_path / "sweep"
    options = [*SMALL, "env=none", "agent.beta=0.1,1.0", "trainer.checkpoint_interval=20", "trainer.updates=100,300"]
    process = start(tmp_path, datasets, "-m", *options, f"hydra.sweep.dir={sweep}")
    last = [sweep / "1", sweep / "3"]
    deadline = time.monotonic() + 120
    while not all(any(job.glob("checkpoint/update_*[1-9]0.*")) for job in last):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -number)
    if number == signal.SIGTERM:
        assert f"sweep.resume={sweep}" in output
    before = [(job / "metrics.jsonl").read_bytes() for job in (sweep / "0", sweep / "2")]
    wrong = cli("-m", *SMALL, "env=none", "agent.beta=0.5,1.0", "trainer.updates=100,300", f"sweep.resume={sweep}")
    assert wrong.returncode == 1
    assert "give the same command to go on with it" in wrong.stdout
    done = cli("-m", *options, f"sweep.resume={sweep}")
    assert done.returncode == 0, done.stdout
    assert before == [(job / "metrics.jsonl").read_bytes() for job in (sweep / "0", sweep / "2")]
    for job in last:
        assert result(job)["status"] == "finished"
        updates = [row["update"] for row in read(job) if row["name"] == "train/value_loss"]
        assert updates == sorted(set(updates))
        assert updates[-1] == 300
        found = checkpoint.latest(job)
        assert found is not None
        assert found[1]["update"] == 300
    assert "nothing left to train" in cli("-m", *options, f"sweep.resume={sweep}").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["agent.beta=0.1,-1"], r"^error: job 1 \(agent.beta=-1\): agent.beta is -1; it must be a positive"),
        (["agent.bta=0.1,0.2"], r"^error: job 0 \(agent.bta=0.1\): there is no agent.bta with the options"),
        (["seed=range(0,0)"], r"^error: the sweep is empty"),
        (["seed=0,1", "resume=somewhere"], r"^error: job 0 .*: resume continues a single run"),
        (["seed=0,1", "sweep.resume=nowhere"], r"^error: nowhere is not the folder of a sweep"),
        (["seed=0,1", "hydra.sweep.dir=/proc/nothing"], r"^error: /proc/nothing cannot be written"),
        (
            ["seed=0,1", "hydra.launcher.max_members=-1"],
            r"^error: hydra.launcher.max_members is -1; it must be a whole",
        ),
        (
            ["seed=0,1", "hydra.launcher.workers=2"],
            r"^error: hydra.launcher.workers is of an engine: give hydra.launcher",
        ),
        (["network=mlp,mpl"], r"^error: job 1 \(network=mpl\): network=mpl: choose network=<one of cnn, cnn_small, "),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_trains(
    cli: Cli, tmp_path: Path, arguments: list[str], message: str
) -> None:
    begun = time.monotonic()
    done = cli("-m", *arguments)
    assert done.returncode == 1
    assert re.search(message, done.stdout), done.stdout
    assert len(done.stdout.strip().splitlines()) == 1, done.stdout
    assert not (tmp_path / "outputs").exists()
    assert time.monotonic() - begun < 20


def test_a_sweep_does_not_go_on_as_a_single_run(cli: Cli, tmp_path: Path) -> None:
    done = cli("sweep.resume=nowhere")
    assert done.returncode == 1
    assert done.stdout.startswith("error: sweep.resume goes on with a sweep: add -m")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_jobs_in_folders_of_their_own_choice(cli: Cli, tmp_path: Path) -> None:
    options = [*SMALL, "agent.beta=0.1,1.0", "hydra.sweep.subdir=${hydra.job.override_dirname}"]
    first = cli("-m", *options, f"hydra.sweep.dir={tmp_path}/sweep")
    assert first.returncode == 0, first.stdout
    (names := [run.folder.name for run in results.runs(tmp_path / "sweep")]).sort()
    assert [name.partition("agent.beta=")[2][:3] for name in names] == ["0.1", "1.0"]
    for name in names:
        assert re.search(rf"-?\d+\.\d +finished +{re.escape(name)}", first.stdout), first.stdout
    again = cli("-m", *options, f"sweep.resume={tmp_path}/sweep")
    assert again.returncode == 0, again.stdout
    assert "nothing left to train" in again.stdout
    assert [run.folder.name for run in results.runs(tmp_path / "sweep")] == names


@pytest.mark.slow
def test_two_sweeps_in_one_second_have_their_own_folders(tmp_path: Path, datasets: Path) -> None:
    shutil.rmtree(tmp_path / "outputs", ignore_errors=True)
    both = [start(tmp_path, datasets, "-m", *SMALL, "env=none", "seed=0,1") for _ in range(2)]
    for process in both:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
    sweeps = list(tmp_path.glob("outputs/sweeps/*/*"))
    assert len(sweeps) == 2
    assert all(result(job)["status"] == "finished" for sweep in sweeps for job in jobs(sweep))
