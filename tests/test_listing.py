"""The list of runs and sweeps, and two runs side by side: from folders as runs leave them, and from broken ones."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from awr_exp import compare, listing, results
from awr_exp.math.diagnosis import diagnose
from tests.math.test_diagnosis import CONFIG, HEALTHY

METRICS = {"eval/return_mean": -150.25, "train/ess": 0.5, "train/std_advantage": 1.0}


def make(folder: Path, *overrides: str, began: float = 0.0, rows: Any = (), **result: Any) -> Path:
    """The folder of a run; rows: updates and values of eval/return_mean."""
    (folder / ".hydra").mkdir(parents=True)
    given = "".join(f"- {json.dumps(one)}\n" for one in overrides)
    (folder / ".hydra" / "overrides.yaml").write_text(given or "[]\n")
    beta = next((one.partition("=")[2] for one in overrides if one.startswith("agent.beta")), "0.3")
    config = f"agent: {{_target_: awr_exp.agents.awr.AWR, beta: {beta}, max_weight: 20.0}}\nseed: 0\n"
    (folder / ".hydra" / "config.yaml").write_text(config)
    os.utime(folder / ".hydra" / "overrides.yaml", (began, began))
    lines = [{"update": u, "env_steps": 0, "name": "eval/return_mean", "value": v} for u, v in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result:
        results.write(folder, {"update": 10, "metrics": METRICS} | result)
    return folder


def lines(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.chdir(folder)
    listing.main([])
    return capsys.readouterr().out.splitlines()


def test_what_is_newest_comes_first_and_a_sweep_is_one_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, sweep = tmp_path / "outputs" / "runs" / "2026-01-01", tmp_path / "outputs" / "sweeps" / "2026-01-02" / "1"
    make(runs / "10-00-00-000001", "agent.beta=0.05", began=1, status="finished")
    make(runs / "10-00-00-000002", "+x='a b'", began=3, status="failed", error="the disk is full", metrics={})
    for number, value in enumerate((-300.0, -100.0, -200.0)):
        given = ("agent.beta=0.3", f"seed={number}", "hydra.x=1")
        make(sweep / str(number), *given, began=2, status="finished", metrics=METRICS | {"eval/return_mean": value})
    make(sweep / "3", "agent.beta=1.0", "seed=0", began=2)
    (sweep / "multirun.yaml").touch()
    (runs / "10-00-00-000001" / "baseline").mkdir()
    (runs / "10-00-00-000001" / "baseline" / "metrics.jsonl").touch()
    assert lines(tmp_path, monkeypatch, capsys) == [
        "folder                                  status        return  health",
        "outputs/runs/2026-01-01/10-00-00-000002 failed",
        "    x='a b'",
        "    the disk is full",
        "outputs/sweeps/2026-01-02/1             3/4 done      -100.0  healthy",
        "    (3 finished, 1 unfinished) agent.beta=0.3,1.0 seed=0,1,2",
        "outputs/runs/2026-01-01/10-00-00-000001 finished      -150.2  healthy",
        "    agent.beta=0.05",
    ]
    listing.main(["outputs/sweeps/2026-01-02/1"])
    jobs = capsys.readouterr().out.splitlines()
    assert [line.split()[0][-2:] for line in jobs if line.startswith("outputs")] == ["/0", "/1", "/2", "/3"]
    listing.main(["--json"])
    found = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["return"], one["health"]) for one in found] == [
        ("run", None, None), ("sweep", -100.0, "healthy"), ("run", -150.25, "healthy"),
    ]  # fmt: skip
    assert found[1]["jobs"] == {"finished": 3, "unfinished": 1}
    assert found[1]["changed"]["agent.beta"] == ["0.3", "1.0"]


def test_what_all_jobs_have_in_common_is_told_once(tmp_path: Path) -> None:
    for number in range(2):
        make(tmp_path / str(number), f"seed={number}", "trainer.updates=7", status="finished")
    told = list(listing.told(listing.entries(tmp_path), apart=True))
    assert told[0] == "all with trainer.updates=7"
    assert sorted(line.strip() for line in told if "=" in line) == ["all with trainer.updates=7", "seed=0", "seed=1"]


def test_no_line_is_too_long_and_no_path_is_broken(tmp_path: Path) -> None:
    deep = make(tmp_path / ("a" * 60) / "b", *(f"x{number}.name={'y' * 20}" for number in range(40)), status="finished")
    told = list(listing.told(listing.entries(tmp_path)))
    assert str(deep) in told
    assert all(len(line) <= listing.WIDTH for line in told if line != str(deep))
    assert told[-1].endswith("...")


def test_a_run_at_work_is_running_and_tells_how_far_it_came(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", rows=[(5, -3.0), (10, -2.0)])
    with results.file_lock(folder):
        (running,) = listing.entries(tmp_path)
    (killed,) = listing.entries(tmp_path)
    assert (running.status, killed.status) == ("running", "unfinished")
    assert (running.update, running.value) == (10, -2.0)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("result.json", "{", "result.json cannot be read: it is no JSON"),
        ("result.json", '{"status": "\x1b[31mred"}', "result.json cannot be read"),
        (".hydra/overrides.yaml", "a: b", "it is not a list"),
        (".hydra/config.yaml", "a: [", None),
        (".hydra/config.yaml", "agent: {beta: 0}", None),
        ("metrics.jsonl", "nonsense\n", None),
    ],
)
def test_a_broken_folder_costs_a_line(tmp_path: Path, name: str, text: str, said: str | None) -> None:
    make(tmp_path / "whole", began=1, status="finished")
    (make(tmp_path / "broken", status="finished") / name).write_text(text)
    broken, whole = sorted(listing.entries(tmp_path), key=lambda one: one.folder)
    assert (whole.status, whole.value) == ("finished", -150.25)
    assert (broken.status == listing.BROKEN) == (said is not None)
    assert (said or "") in broken.error
    assert all(line.isprintable() for line in listing.told([whole, broken]))


def test_each_number_of_a_diagnosis_has_a_word() -> None:
    assert {one.name for one in diagnose(HEALTHY, CONFIG)} == listing.WORDS.keys()


def test_commands_that_mean_nothing_and_one_whose_reader_leaves(tmp_path: Path) -> None:
    make(tmp_path / "run", status="finished")
    command = [sys.executable, "-m", "awr_exp.listing"]
    done = subprocess.run([*command, "nowhere"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1, "error: nowhere is not a folder: name one in which there are runs, such as outputs\n",
    )  # fmt: skip
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*command, "."], cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


# Two side by side


def test_settings_and_curves_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a = make(tmp_path / "a", "agent.beta=0.05", rows=[(0, -5), (100, -4), (250, -3)], status="finished")
    b = make(tmp_path / "b", "agent.beta=3.0", rows=[(0, -9.0), (500, -1234.5)], status="failed", error="no")
    monkeypatch.chdir(tmp_path)
    compare.main([a.name, b.name])
    told = capsys.readouterr().out.splitlines()
    assert told[:5] == [
        "A  a", "B  b", "", "settings that differ         A                         B",
        "  agent.beta                 0.05                      3.0",
    ]  # fmt: skip
    assert "  status                     finished                  failed" in told
    curves = told[told.index(next(line for line in told if line.startswith("curves"))) :]
    assert [line.split() for line in curves] == [
        ["curves,", "at", "updates", "0", "100", "200", "300", "400", "500"],
        ["eval/return_mean", "A", "-5", "-4", "-3"],
        ["B", "-9", "-1234.5"],
    ]
    # Each value stands below its place.
    assert len({line.index(value) + len(value) for line, value in zip(curves[:2], ("300", "-3"), strict=True)}) == 1
    assert all(len(line) <= listing.WIDTH for line in told)


def test_the_same_run_differs_in_nothing(finished: Path) -> None:
    side = compare.read(finished)
    told = list(compare.told(side, side))
    assert "settings that differ: there are none" in told
    assert any(line.startswith("  train/ess") for line in told)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "nowhere is not the folder of a run"),
        (".", "holds 2 runs: name one of them; a report compares all runs of both: "),
        ("b", "config.yaml cannot be read"),
    ],
)
def test_what_is_no_run_cannot_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
) -> None:
    make(tmp_path / "a", status="finished")
    (make(tmp_path / "b", status="finished") / ".hydra" / "config.yaml").write_text("[")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f"^error: .*{said}"):
        compare.main(["a", place])
