"""What is measured at the end of a run: it says what it should, and changes and costs nothing else."""

import logging
from pathlib import Path
from typing import Any

import pytest

from awr_exp.training import examine
from awr_exp.training.rows import read
from tests.conftest import composed, train

SMALL = ["experiment=smoke", "network.hidden=[16]", "logger=jsonl", "trainer.eval_episodes=6", "trainer.updates=20"]
PLAYED = {"sampled_return_mean", "sampled_lead", "foreign_steps", "lead", "best_return_mean"}
OF_DATA = {"coverage", "reach", "policy_distance"}
Rows = dict[str, float]


@pytest.fixture(autouse=True)
def minari(datasets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))


def measured(folder: Path) -> Rows:
    rows = [row for row in read(folder) if row["name"].startswith("diagnosis/")]
    return {row["name"].partition("/")[2]: row["value"] for row in rows}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ([], PLAYED | OF_DATA),
        (["env=none"], OF_DATA),
        (["agent=bc", "dataset=cartpole_mixed"], PLAYED | OF_DATA),
        (["dataset.action_chunk=4"], PLAYED | OF_DATA),
        (["trainer.eval_episodes=1"], (PLAYED | OF_DATA) - {"lead", "sampled_lead"}),
        (["dataset.max_transitions=900"], (PLAYED | OF_DATA) - {"coverage", "reach"}),
    ],
)
def test_a_run_on_data_is_measured(overrides: list[str], names: set[str], tmp_path: Path) -> None:
    (outcome,) = train([composed(*SMALL, *overrides)], [tmp_path], examines=True)
    assert outcome.error is None
    found = measured(tmp_path)
    assert found.keys() == names
    assert {f"diagnosis/{name}": value for name, value in found.items()}.items() <= outcome.metrics.items()


def test_a_member_is_measured_as_it_would_be_alone(tmp_path: Path) -> None:
    cfgs = [composed(*SMALL, f"seed={seed}") for seed in (0, 1)]
    folders = [tmp_path / name for name in ("a", "b", "alone")]
    train(cfgs, folders[:2], examines=True)
    train(cfgs[1:], folders[2:], examines=True)
    first, second, alone = map(measured, folders)
    assert second == pytest.approx(alone, rel=1e-3)
    assert first["policy_distance"] != second["policy_distance"]


def test_an_online_run_has_its_best_return_alone(tmp_path: Path) -> None:
    online = [
        "trainer=online", "env=cartpole", "trainer.env_steps=64", "trainer.envs=2", "schedule.samples_per_iteration=32",
        "schedule.critic_steps=2", "schedule.actor_steps=2", "network.hidden=[8]", "logger=jsonl",
        "trainer.eval_episodes=1", "trainer.compile=false",
    ]  # fmt: skip
    train([composed(*online)], [tmp_path], examines=True)
    assert measured(tmp_path).keys() == {"best_return_mean"}


def test_what_cannot_be_measured_costs_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*parts: Any) -> None:
        raise RuntimeError("there is no number")

    monkeypatch.setattr(examine, "_sampled", broken)
    with caplog.at_level(logging.INFO):
        (outcome,) = train([composed(*SMALL)], [tmp_path], examines=True)
    assert outcome.error is None
    assert "eval/return_mean" in outcome.metrics
    assert "no diagnosis of what could not be measured: " in caplog.text


def test_the_end_of_a_run_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train([composed(*SMALL, "agent.beta=100")], [tmp_path], examines=True)
    lines = capsys.readouterr().out.splitlines()
    (said,) = (number for number, line in enumerate(lines) if line.startswith("diagnosis: the critic lags"))
    assert lines[said + 1].startswith("beside that: beta 100 is very large")


def test_a_member_that_failed_costs_the_others_no_diagnosis(tmp_path: Path) -> None:
    cfgs = [composed(*SMALL, f"agent.actor_lr={lr}", "trainer.eval_interval=40") for lr in ("3e-4", "1e30")]
    outcomes = train(cfgs, [tmp_path / "0", tmp_path / "1"], examines=True)
    assert [outcome.error is None for outcome in outcomes] == [True, False]
    assert measured(tmp_path / "0").keys() == PLAYED | OF_DATA
