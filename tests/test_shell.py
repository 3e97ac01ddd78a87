"""Every command that is printed can be pasted: a real shell reads it, and then Hydra does."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from awr_exp import config, shell
from awr_exp.data import export
from awr_exp.errors import UserError
from awr_exp.sweep import closing, engines
from awr_exp.sweep.group import Group
from awr_exp.training import closing as run_closing
from awr_exp.training.loggers import Wandb
from awr_exp.training.run import Run

NASTY = (
    "plain", "with spaces", "agent.beta=0.3,seed=1 (läuft)", "it's", 'say "so"', "cost$5", "$HOME", "${seed}", "\\${x}",
    "a\\", "*", "[a]", "{a: 1}", "~", "#1", "!x", "`id`", "a;b", "null", "None", "true", "1e5", "007", "", " ", "-m",
    "a:b", "tab\there", "line\nbreak",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *NASTY, None, True, 0, -3, 0.1, 1e-7, 1e300, [], [1, None, "a b", [True]], {}, {"a b": [1], "c": {"d": "e, f"}},
)  # fmt: skip


def meant(argument: str) -> Any:
    """What Hydra and OmegaConf make of an override."""
    return OmegaConf.to_container(
        OmegaConf.create({"value": OverridesParser.create().parse_override(argument).value()}), resolve=True
    )["value"]  # type: ignore[index, call-overload]


@pytest.fixture
def pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a command hands to its program, when it is pasted into a shell that finds this environment."""
    programs = tmp_path / "the bin"
    programs.mkdir()
    for name in ("python", "wandb"):
        (programs / name).write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "argv", ["main.py"])

    def paste(command: str) -> list[str]:
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
        return done.stdout.split("\0")[:-1]

    return paste


@pytest.mark.parametrize("on_path", [True, False])
def test_any_value_survives_the_shell_and_hydra(on_path: bool, pasted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_path:
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    command = shell.command(*(shell.override("a.b", value) for value in VALUES))
    assert command.startswith("python -m awr_exp.main ") == on_path
    assert [*map(meant, pasted(command)[2:])] == list(VALUES)


TEXTS = st.text("ab$\\'\"{}[],:=() ~\tü0.-") | st.text()


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS, st.lists))
def test_any_value_survives_hydra(value: Any) -> None:
    assert meant(shell.override("a", value)) == value


@pytest.mark.parametrize("name", [name for name in NASTY if "/" not in name])
def test_what_goes_on_with_a_run_can_be_pasted(name: str, tmp_path: Path, pasted: Any) -> None:
    (tmp_path / name / ".hydra").mkdir(parents=True)
    (tmp_path / name / ".hydra" / "config.yaml").write_text("agent: {_target_: mine.Agent}")
    arguments = pasted(config.to_resume(tmp_path / name, ["trainer.updates=3"]))
    assert arguments[:2] == ["-m", "awr_exp.main"]
    resume, change, trust = arguments[2:]
    assert (meant(resume), change, meant(trust)) == (str(tmp_path / name), "trainer.updates=3", ["mine.Agent"])


ODD = "sweep=1, (2) $x 'läuft'"


def test_the_hint_to_trust_a_part_can_be_pasted(tmp_path: Path, pasted: Any) -> None:
    with pytest.raises(UserError) as error:
        config.check_trusted({"_target_": "mine.Agent"}, tmp_path)
    hint = str(error.value).partition("if it is yours, ")[2]
    assert meant(pasted(f"{shell.words(sys.executable)} {hint}")[0]) == ["mine.Agent"]


def test_the_notes_of_a_sweep_can_be_pasted(
    tmp_path: Path, pasted: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["main.py", "-m", "agent.beta=0.1,1.0", "--config-dir", "my conf", "hydra.sweep.dir=x"]
    )
    monkeypatch.setattr(closing, "_report", lambda folder: (None, []))
    sweep = tmp_path / ODD
    runs = [sweep / "a b" / str(number) / "wandb" / "offline-run-1" for number in range(2)]
    for run in runs:
        run.mkdir(parents=True)
    closing.show(sweep, [["agent.beta=0.1"], ["agent.beta=1.0"]], [run.parent.parent for run in runs], {})
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    # Below W&B's own `sync` come the runs, one after another.
    assert pasted(said["W&B upload"])[-2:] == [str(run) for run in runs]
    *before, resume = pasted(said["2 of 2 jobs are not finished, go on with"])
    assert before == ["-m", "awr_exp.main", "-m", "agent.beta=0.1,1.0", "--config-dir", "my conf"]
    assert meant(resume) == str(sweep)


def test_how_to_go_on_after_a_lost_worker_can_be_pasted(tmp_path: Path, pasted: Any) -> None:
    group = Group([{}], [tmp_path], ["one"], OmegaConf.create(), False)
    (outcome,) = engines._lost(group, tmp_path / ODD, MemoryError("killed"))
    hint = str(outcome.error).partition("the same command with ")[2].removesuffix(" goes on")
    assert meant(pasted(f"{shell.words(sys.executable)} {hint}")[0]) == str(tmp_path / ODD)


def test_what_looks_at_an_offline_run_can_be_pasted(
    tmp_path: Path, pasted: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    wandb = Wandb(tmp_path / ODD, mode="offline")
    wandb.finish({}, {})
    (run,) = (tmp_path / ODD / "wandb").glob("offline-run-*")
    look, upload = (text.partition(": ")[2] for text in caplog.messages if text.startswith("W&B offline, "))
    assert [pasted(look)[-2:], pasted(upload)[-2:]] == [["leet", str(run)], ["sync", str(run)]]
    run_closing.show(None, Run(tmp_path / ODD, config={"agent": {"_target_": "awr_exp.AWR"}}), None)
    said = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if ": " in line)
    assert pasted(said["dashboard"])[-2:] == ["leet", str(tmp_path / ODD / "wandb")]


def test_how_to_train_on_a_data_set_can_be_pasted(pasted: Any) -> None:
    env = gymnasium.Env()
    env.spec = gymnasium.envs.registration.EnvSpec("Own-v0", entry_point="mine:Own", kwargs={"map": [ODD, None, 1]})
    env.spec.id = "mine:Own-v0"
    _, _, *arguments = pasted(export.command("own/data-v0", env, clip_actions=False))
    assert arguments[:4] == ["dataset=minari", "dataset.id=own/data-v0", "env=gym", "env.id=mine:Own-v0"]
    assert arguments[4].startswith("+env.kwargs.map=")
    assert meant(arguments[4]) == [ODD, None, 1]
    assert arguments[5] == "env.clip_actions=false"


def test_the_best_of_a_search_finds_own_parts(monkeypatch: pytest.MonkeyPatch, pasted: Any) -> None:
    own = ["-cd", "my conf", "hydra.searchpath=[file://b]", "--config-name=mine"]
    monkeypatch.setattr(sys, "argv", ["main.py", "-m", *own, "hydra/sweeper=optuna", "a=1,2"])
    _, _, *arguments = pasted(shell.with_own_parts("a=1"))
    assert arguments == [*own, "a=1"]
