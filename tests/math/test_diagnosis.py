"""The likeliest cause comes first: of runs that were broken on purpose, as recorded and, slowly, as trained anew."""

import json
from pathlib import Path
from typing import Any

import pytest

from awr_exp.math.diagnosis import diagnose, said
from tests import broken

RECORDED: dict[str, Any] = json.loads(broken.FILE.read_text())
EXPECTED = [(f"{task}, {name}", starts) for task in broken.TASKS for name, (_, starts) in broken.RUNS.items()]
EXPECTED = [(name, starts) for name, starts in EXPECTED if name in RECORDED]
HEALTHY: dict[str, float] = RECORDED["pendulum, healthy"]["metrics"]
CONFIG: dict[str, Any] = RECORDED["pendulum, healthy"]["config"]


@pytest.mark.parametrize(("name", "starts"), EXPECTED)
def test_the_cause_of_a_recorded_run_comes_first(name: str, starts: str) -> None:
    assert starts in broken.first(**RECORDED[name])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "starts"), EXPECTED)
def test_the_cause_of_a_run_comes_first(
    name: str, starts: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    task, _, kind = name.partition(", ")
    assert starts in broken.first(*broken.of_run(task, kind, tmp_path))


@pytest.mark.parametrize(
    ("metrics", "starts"),
    [
        ({"diagnosis/policy_distance": 2.6}, "the policy's actions are 2.6 spreads"),
        ({"diagnosis/sampled_lead": 0.5}, "samples of the policy"),
        (
            {"diagnosis/best_return_mean": 500.0, "eval/return_mean": 9.0, "eval/return_std": 1.0},
            "the last evaluation (9)",
        ),
        ({"diagnosis/lead": -1.0}, "the policy is worse than the mean"),
        ({"train/ess": 0.01}, "the weights collapsed"),
        ({"train/ess": 0.98, "train/clipped": 0.95, "train/zero_weight": 0.0}, "the weights are saturated"),
        ({"train/mean_weight": 0.0, "train/ess": 0.0, "train/clipped": 0.0}, "all weights are 0"),
        ({"train/ess": 0.999}, "all weights are nearly equal"),
        # Of a beta that a weighting solves for, and holds where it wants it, there is no advice.
        ({"train/beta": 100.0, "train/ess": 0.999}, ""),
        # One that is exact, and one whose targets are all alike, have nothing left to explain.
        ({"train/explained_variance": 1.0}, ""),
        # It is off in the mean by more than advantages are apart, but by little of what targets are.
        ({"train/explained_variance": 0.9997, "train/value_loss": 3.3e-4, "train/std_advantage": 0.013}, ""),
        ({"train/explained_variance": 0.0, "train/std_advantage": 0.1, "train/mean_value": 30.0}, ""),
    ],
)
def test_each_ill_has_its_sentence(metrics: dict[str, float], starts: str) -> None:
    found = said(diagnose(HEALTHY | metrics, CONFIG))
    assert bool(found) == bool(starts)
    assert all(sentence.startswith(starts) and "\n" not in sentence and sentence[-1] != "." for sentence in found[:1])


def test_a_cause_comes_before_what_it_causes() -> None:
    ills = {
        "diagnosis/lead": -1.0, "diagnosis/policy_distance": 3.0, "train/ess": 0.01, "diagnosis/coverage": 0.0,
        "train/value_loss": 1e3, "diagnosis/foreign_steps": 0.9,
    }  # fmt: skip
    begins = ["90% of the", "the critic lags", "the data's", "the weights coll", "the policy's", "the policy is"]
    found = said(diagnose(HEALTHY | ills, CONFIG))
    assert [sentence[: len(begin)] for sentence, begin in zip(found, begins, strict=True)] == begins
    assert said(diagnose(HEALTHY | ills | {"train/equal_rewards": 1.0}, CONFIG))[0].startswith("all rewards")


@pytest.mark.parametrize("lacks", ["train/", "eval/", "diagnosis/", "train/std_advantage", "train/ess", ""])
def test_what_a_run_lacks_is_not_judged(lacks: str) -> None:
    left = {name: value for name, value in HEALTHY.items() if not name.startswith(lacks)}
    assert said(diagnose(left, CONFIG)) == []
    assert len(diagnose(left, CONFIG)) < len(diagnose(HEALTHY, CONFIG))
    assert said(diagnose(HEALTHY, {})) == []


@pytest.mark.parametrize(
    ("weighting", "starts"),
    [
        ("awr_exp.math.weights.exp_clip", "the weights collapsed"),
        ("awr_exp.math.weights.indicator", ""),
        ("${weighting}", "the weights collapsed"),
    ],
)
def test_a_weighting_that_heeds_no_beta_is_not_blamed_for_it(weighting: str, starts: str) -> None:
    config = {"agent.beta": 0.3, "agent.weighting": weighting}
    found = said(diagnose(HEALTHY | {"train/ess": 0.01}, config))
    assert bool(found) == bool(starts)
    assert all(sentence.startswith(starts) for sentence in found)


@pytest.mark.parametrize("place", ["agent._target_", "agent"])
@pytest.mark.parametrize(("kind", "starts"), [("awr_exp.agents.awr.AWR", "the critic lags"), ("RWR", "")])
def test_advantages_without_a_baseline_do_not_tell_how_far_a_critic_is(place: str, kind: str, starts: str) -> None:
    others = {name: value for name, value in CONFIG.items() if name != "agent._target_"}
    found = said(diagnose(HEALTHY | {"train/value_loss": 1e3}, others | {place: kind}))
    assert all(sentence.startswith(starts) for sentence in found)
    assert bool(found) == bool(starts)


def test_a_finding_has_its_number_and_range() -> None:
    found = {one.name: one for one in diagnose(HEALTHY, CONFIG)}
    assert len(found) == len(diagnose(HEALTHY, CONFIG)) == 13
    assert found["explained variance"].value == HEALTHY["train/explained_variance"]
    assert found["spread of the advantages / beta"].value == 1 / CONFIG["agent.beta"]
    assert found["explained variance"].healthy == "0.2 or more"


@pytest.mark.parametrize(
    ("chosen", "advice"),
    [
        ({}, "try head=mixture, or policy.best_of=8"),
        ({"agent.head._target_": "awr_exp.networks.flow.Flow"}, "try policy.best_of=8"),
        ({"agent.head._target_": "awr_exp.networks.flow.Flow", "policy.best_of": 4}, "try policy.best_of=1"),
        ({"policy.best_of": 4}, "try policy.best_of=1"),
        ({"policy.best_of": 1}, "try head=mixture"),
    ],
)
def test_nobody_is_told_to_try_what_is_chosen(chosen: dict[str, Any], advice: str) -> None:
    (sentence,) = said(diagnose(HEALTHY | {"diagnosis/sampled_lead": 0.5}, CONFIG | chosen))
    assert advice in sentence
