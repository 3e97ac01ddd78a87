"""A policy that has several modes passes the rock of TwoWays-v0, and one that has one mode does not."""

from pathlib import Path

import pytest

from tests.conftest import composed, train


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "least", "most"),
    [("gaussian", 0.0, 0.3), ("mixture", 0.9, 1.0), ("flow", 0.9, 1.0), ("categorical_bins", 0.9, 1.0)],
)
def test_two_ways_are_kept_apart(
    head: str, least: float, most: float, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    small = ["network.hidden=[64,64]", "logger=jsonl", "trainer.updates=3_000", "trainer.compile=true"]
    own = ["head.hidden=[64,64]"] if head == "flow" else []
    (outcome,) = train([composed("dataset=two_ways", f"head={head}", *small, *own)], [tmp_path])
    assert outcome.error is None
    assert least <= outcome.metrics["eval/return_mean"] <= most
