"""W&B around a sweep: its definition files and the dashboard made from code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils

from awr_exp import config, dashboard
from awr_exp.errors import UserError
from tests.conftest import Cli

FILES = sorted((config.SWEEPS / "wandb").glob("*.yaml"))


def chosen(parameter: dict[str, Any]) -> Any:
    """A value that W&B could pick."""
    return parameter.get("value", parameter.get("values", [parameter.get("min")])[0])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_command_line_that_a_wandb_agent_runs(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert sweep["method"] == {"beta": "grid"}.get(path.stem, path.stem)
    assert sweep["metric"] == {"name": "eval/return_mean", "goal": "maximize"}
    picked = {name: {"value": chosen(parameter)} for name, parameter in sweep["parameters"].items()}
    arguments = utils.create_sweep_command_args({"args": picked})["args_no_hyphens"]
    template = utils.create_sweep_command(sweep["command"])
    names = {"${env}": [], "${interpreter}": [sys.executable], "${program}": [sweep["program"]]}
    command: list[str] = []
    for part in template:
        command += arguments if part == "${args_no_hyphens}" else names.get(part, [part])
    done = subprocess.run([*command, "--cfg", "job"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cfg = yaml.safe_load(done.stdout)
    for name, value in picked.items():
        node = cfg
        for key in name.split("."):
            node = node[key]
        assert isinstance(node, dict) or node == value["value"], name


def test_the_dashboard_shows_what_was_promised() -> None:
    pytest.importorskip("wandb_workspaces")
    content = json.dumps(dashboard.definition(dashboard.workspace("me", "mine", "2026-11-21/10-00")))
    metrics = ["eval/return_mean", "train/value_loss", "train/mean_advantage", "train/mean_weight", "train/ess"]
    for name in [*metrics, "train/clipped", "train/updates_per_second", "2026-11-21/10-00", "agent.value.beta"]:
        assert name in content, name


def test_without_a_key_the_definition_is_written(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    surroundings = os.environ | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    surroundings.pop("WANDB_API_KEY", None)
    done = subprocess.run(
        [sys.executable, "-m", "awr_exp.main", "dashboard", "--project", "mine"],
        cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "run `wandb login`" in done.stdout
    assert json.loads((tmp_path / "dashboard.json").read_text())["project"] == "mine"


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"awr-exp\[dashboard\]"):
        dashboard.workspace("me", "mine")


def test_sweep_files_are_offered_and_wandb_files_are_not(cli: Cli) -> None:
    text = cli("--help").stdout
    assert "+sweep=beta_by_estimator" in text
    assert "wandb:" not in text.partition("== Config ==")[0]
