"""Configurations become trained members."""

from pathlib import Path

import pytest

from awr_exp import results
from awr_exp.sweep import experiment
from awr_exp.training import memory
from tests.conftest import SMALL, composed


def test_what_does_not_fit_the_memory_is_trained_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    small = [*SMALL, "env=none", "trainer.updates=20", "trainer.compile=false"]
    cfgs = [composed(*small, f"agent.beta={beta}") for beta in (0.1, 0.3, 1.0)]
    data = experiment.build(cfgs[0]["dataset"])
    agent = experiment.build(cfgs[0]["agent"], spec=data.spec, seeds=[0])
    assert memory.capacity(agent, len(data), 256, agent.device) > 3
    monkeypatch.setattr(memory, "capacity", lambda *_: 2)
    folders = [tmp_path / str(number) for number in range(3)]
    outcomes = experiment.train(cfgs, folders, ["a", "b", "c"])
    assert [outcome.error for outcome in outcomes] == [None, None, None]
    assert [results.read(folder).status for folder in folders] == ["finished"] * 3
    assert "3 members do not fit the memory of cpu: training 2 at a time" in caplog.text
