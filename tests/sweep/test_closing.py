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


def test_no_job_is_cut_and_a_loss_takes_the_place_of_a_likelihood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(closing, "_report", lambda folder: (None, []))
    monkeypatch.setenv("COLUMNS", "60")
    known = {"head=deterministic_and_long": {"weighted_loss": 0.5}, "head=gaussian": {"weighted_nll": 1.5}}
    for name, metrics in known.items():
        (tmp_path / name).mkdir()
        found = {"status": "finished", "metrics": {f"heldout/{metric}": value for metric, value in metrics.items()}}
        (tmp_path / name / "result.json").write_text(json.dumps(found))
    closing.show(tmp_path, [[name] for name in known], [tmp_path / name for name in known], {})
    printed = capsys.readouterr().out.split("sweep:")[0]
    assert "loss 0.5" in printed
    assert "1.5" in printed
    assert "…" not in printed


def test_of_many_jobs_the_best_and_the_first_that_failed_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(closing, "_report", lambda folder: (None, []))
    jobs = [[f"seed={number}"] for number in range(60)]
    for number in range(60):
        (tmp_path / str(number)).mkdir()
        result = {"status": "finished", "metrics": {"eval/return_mean": float(number)}}
        if number in range(10):
            result = {"status": "failed", "error": f"reason {number}", "metrics": {}}
        (tmp_path / str(number) / "result.json").write_text(json.dumps(result))
    places = [tmp_path / str(number) for number in range(60)]
    assert closing.show(tmp_path, jobs, places, {})
    printed = capsys.readouterr().out
    rows = [line.split()[0] for line in printed.splitlines() if line.startswith("seed=")]
    assert rows == [f"seed={number}" for number in [*range(59, 39, -1), *range(5)]]
    assert "reason 4" in printed
    assert "35 others are in the whole list: " in printed
    # Of as many as a screen has room for, none is left out.
    closing.show(tmp_path, jobs[:40], places[:40], {})
    assert capsys.readouterr().out.count("seed=") == 40
