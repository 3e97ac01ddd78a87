"""examples/extending: parts from outside the package do all that ours do."""

import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import awr_exp
from awr_exp import results
from awr_exp.training.rows import read
from tests.conftest import CONTINUOUS, Cli, start
from tests.test_contract import OFFLINE, SCHEDULES, agree, configuration, keeps_promises

EXAMPLE = Path(__file__).parent.parent / "examples" / "extending"
OWN = sorted(
    (path.parent.name, path.stem)
    for path in EXAMPLE.glob("conf/*/*.yaml")
    if path.parent.name in ("agent", "weighting", "head", "network")
)
SMALL = [
    "--config-dir", "conf", "experiment=corridor", "logger=jsonl", "threads=1", "trainer.compile=false",
    "trainer.updates=60", "trainer.report_interval=10", "trainer.eval_interval=10", "trainer.checkpoint_interval=10",
    "trainer.eval_episodes=2",
]  # fmt: skip
TRUST = ["my_parts.laplace.Laplace", "my_parts.residual.Residual"]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_parts"):
            del sys.modules[name]


def own(schedule: str, *overrides: str) -> dict[str, Any]:
    return configuration(schedule, f"hydra.searchpath=[file://{EXAMPLE}/conf]", *overrides)


@pytest.mark.parametrize(
    "schedule", [SCHEDULES[0], *(pytest.param(one, marks=pytest.mark.long) for one in SCHEDULES[1:])]
)
@pytest.mark.parametrize(("group", "option"), OWN)
def test_an_own_part_keeps_what_all_promise(group: str, option: str, schedule: str, tmp_path: Path) -> None:
    keeps_promises(own(schedule, f"{group}={option}"), CONTINUOUS, tmp_path, [OWN.index((group, option)) % 3], TRUST)


def test_they_are_compiled_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile(function, fullgraph=True, backend="eager"))
    agree(own(OFFLINE, *(f"{group}={option}" for group, option in OWN)), CONTINUOUS, tmp_path, torch.float64, 1e-6)
    assert "compilation failed" not in caplog.text


def test_the_laplace_head_is_that_distribution() -> None:
    from my_parts.laplace import Laplace

    head, g = Laplace(CONTINUOUS), torch.Generator().manual_seed(0)
    outputs = torch.tensor([0.2, -0.3]).expand(1, 20_000, 2)
    extra = {"log_width": torch.tensor([[[-1.0, 0.5]]])}
    oracle = torch.distributions.Laplace(outputs, extra["log_width"].exp())
    x = torch.randn(1, 20_000, 2, generator=g)
    log_prob = head.log_prob(outputs, extra, head.to_action(x))
    assert_close(log_prob, oracle.log_prob(x).sum(-1) - np.log(3))
    assert_close(head.entropy(outputs, extra), oracle.entropy().sum(-1) + np.log(3))
    drawn = head.in_units(head.act(outputs, extra, torch.randn(1, 20_000, head.noise, generator=g)), outputs)
    assert_close(drawn.mean(1), outputs[:, 0], atol=0.05, rtol=0)
    assert_close(drawn.std(1), oracle.stddev[:, 0], atol=0.05, rtol=0)
    assert_close((drawn - outputs).abs().mean(1), oracle.scale[:, 0], atol=0.05, rtol=0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the example and a log of the corridor."""
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    from my_parts.corridor import write_log

    write_log(str(tmp_path / "log.csv"), episodes=8)
    return tmp_path


def stopped(folder: Path, datasets: Path, *arguments: str) -> str:
    """The command that goes on with a run which was stopped after its second checkpoint."""
    process = start(folder, datasets, *arguments)
    deadline = time.monotonic() + 100
    while not list(folder.rglob("run/checkpoint/update_*20.safetensors")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 143, output
    return output.rpartition("go on with: ")[2].strip()


@pytest.mark.slow
def test_a_run_of_own_parts_goes_on_to_the_bit_by_the_command_that_is_printed(
    place: Path, datasets: Path, cli: Cli
) -> None:
    line = stopped(place, datasets, *SMALL, "hydra.run.dir=run")
    for name in (
        "xql.XQL",
        "laplace.Laplace",
        "residual.Residual",
        "steady.Steady",
        "table.read",
        "patience.Patience",
    ):
        assert f"my_parts.{name}" in line
    assert "my_parts.corridor" in line
    program, dash, module, *arguments = shlex.split(line)
    assert (dash, module) == ("-m", "awr_exp.main"), program
    for run in (arguments, [*SMALL, "hydra.run.dir=whole"]):
        done = cli(*run)
        assert done.returncode == 0, done.stdout
    found = [[row for row in read(place / name) if not row["name"].endswith("per_second")] for name in ("run", "whole")]
    assert found[0] == found[1]
    assert next(row["value"] for row in found[0] if row["name"] == "eval/since_best") == 0
    states = [load_file(place / name / "checkpoint" / "update_0000000060.safetensors") for name in ("run", "whole")]
    assert states[0].keys() == states[1].keys() >= {"q.average", "weighting.log_scale"}
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    action = awr_exp.load(place / "run", trust=TRUST)(np.zeros((3, 2)))
    assert action.shape == (3, 1)
    assert (np.abs(action) <= 1).all()


@pytest.mark.slow
def test_a_sweep_over_their_own_arguments_trains_as_one(place: Path, cli: Cli) -> None:
    done = cli("-m", *SMALL, "agent.target_rate=0.005,0.5", "weighting.share=0.3,0.7", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stdout
    assert "jobs to train: 4, groups: 1," in done.stdout
    runs = results.runs(place / "sweep")
    assert [run.status for run in runs] == ["finished"] * 4
    assert len({run.metrics["train/actor_loss"] for run in runs}) == 4


def test_they_go_on_from_their_own_offline_part_and_a_video_that_nothing_draws_ends_no_run(
    place: Path, datasets: Path, cli: Cli
) -> None:
    online = ["trainer=finetune", "schedule=interleaved", "callback=[patience,video]", "trainer.pretrain.compile=false"]
    small = {
        "env_steps": 80, "envs": 4, "report_interval": 20, "eval_interval": 40, "checkpoint_interval": 40,
        "eval_episodes": 1, "compile": "false", "batch_size": 16, "pretrain.updates": 10,
    }  # fmt: skip
    options = [f"trainer.{name}={value}" for name, value in small.items()]
    done = cli(
        "--config-dir", "conf", "agent=xql", "head=laplace", "network=residual", "weighting=steady", "dataset=table",
        "dataset.path=log.csv", "env=corridor", *online, *options, "schedule.learning_starts=20", "logger=jsonl",
        "schedule.update_interval=10", "threads=1", "hydra.run.dir=run",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("there are no more videos of this run: ") == 1
    assert not (place / "run" / "video").exists()
    assert "a new one is learnt" not in (place / "run" / "train.log").read_text()
    assert results.read(place / "run").env_steps == 80


def test_the_readme_says_each_file_and_the_pages_show_them_as_they_are() -> None:
    readme = (EXAMPLE / "README.md").read_text()
    for path in EXAMPLE.rglob("*.*"):
        if path.suffix in (".py", ".yaml") and path.name != "__init__.py":
            assert f"`{path.relative_to(EXAMPLE)}`" in readme, path
    page = (EXAMPLE.parent.parent / "docs" / "extending.md").read_text()
    shown = re.findall(r"^```\{literalinclude\} \.\./examples/extending/(\S+)", page, re.MULTILINE)
    for name in shown:
        assert (EXAMPLE / name).exists(), name
    assert {f"my_parts/{path.name}" for path in EXAMPLE.glob("my_parts/[!_]*.py")} <= set(shown)
