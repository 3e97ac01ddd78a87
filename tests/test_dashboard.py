"""W&B around a sweep: its definition files and the dashboard made from code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps import utils

from awr_exp import config, dashboard
from awr_exp.errors import UserError
from awr_exp.report import page
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


def test_without_a_key_the_page_of_the_newest_run_is_shown(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboard, "_has_key", lambda: False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^error: there are no runs in outputs"):
        dashboard.main([])
    newest, before = tmp_path / "outputs" / "runs" / "b", tmp_path / "outputs" / "runs" / "a"
    shutil.copytree(finished, before)
    (before / "result.json").write_text("{")
    shutil.copytree(finished, newest)
    (newest / ".hydra" / "overrides.yaml").touch()
    opened: list[str] = []
    monkeypatch.setattr(dashboard.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    dashboard.main([])
    path = Path(capsys.readouterr().out.splitlines()[-1].removeprefix("report: "))
    assert str(newest.relative_to(tmp_path)) in path.read_text()
    assert opened == [path.absolute().as_uri()]
    # Where there is no display, nothing takes over the terminal.
    monkeypatch.setattr(page, "write", lambda folders, out: (path, []))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    dashboard.main([])
    assert len(opened) == 1


def test_the_definition_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    dashboard.main(["--project", "mine", "--out", str(tmp_path / "mine.json")])
    assert json.loads((tmp_path / "mine.json").read_text())["project"] == "mine"
    with pytest.raises(SystemExit, match=r"^error: .* cannot be written"):
        dashboard.main(["--out", str(tmp_path / "none" / "mine.json")])


def test_what_is_shown_first_is_the_return() -> None:
    pytest.importorskip("wandb_workspaces")
    first = dashboard.workspace("me", "mine").sections[0]
    assert first.is_open
    assert first.panels[0].y == ["eval/return_mean"]


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"awr-exp\[dashboard\]"):
        dashboard.workspace("me", "mine")


def test_sweep_files_are_offered_and_wandb_files_are_not(cli: Cli) -> None:
    text = cli("--help").stdout
    assert "+sweep=beta_by_estimator" in text
    assert "\n  wandb\n" not in text
    assert "+wandb=" not in text
