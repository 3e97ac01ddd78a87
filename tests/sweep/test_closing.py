"""The table at the end of a sweep names the number that most likely says why a job does not learn."""

import json
from pathlib import Path

import pytest
import yaml

from awr_exp.sweep import closing

CONFIG = {"agent": {"_target_": "awr_exp.agents.awr.AWR", "beta": 0.3, "max_weight": 20.0}}


@pytest.mark.parametrize("ill", [True, False])
def test_what_to_look_at_is_beside_each_job(
    ill: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(closing, "_report", lambda folder: (None, []))
    coverage = {"0": 0.5, "1": 0.01 if ill else 0.5}
    for name, value in coverage.items():
        (tmp_path / name / ".hydra").mkdir(parents=True)
        (tmp_path / name / ".hydra" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        metrics = {"eval/return_mean": float(name), "diagnosis/coverage": value}
        (tmp_path / name / "result.json").write_text(json.dumps({"status": "finished", "metrics": metrics}))
    jobs, places = [["agent.beta=0.1"], ["agent.beta=1"]], [tmp_path / name for name in coverage]
    # One that left nothing is no one's to judge.
    closing.show(tmp_path, [*jobs, ["agent.beta=2"]], [*places, tmp_path / "2"], {})
    printed = capsys.readouterr().out
    assert ("look at" in printed) == ill
    (row,) = (line for line in printed.splitlines() if line.startswith("agent.beta=1 "))
    assert ("lead of the data's best tenth" in row) == ill
