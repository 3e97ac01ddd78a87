"""What a data set has to learn from: known where it was made so."""

from typing import Any

import numpy as np
import pytest
import torch

from awr_exp.data import facts
from awr_exp.data.episodes import from_episodes
from awr_exp.data.transitions import Transitions
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, DISCRETE

REFERENCES = {"ref_min_score": 0.0, "ref_max_score": 200.0}


def data(returns: Any, starts: Any = None, spec: Spec = CONTINUOUS, **references: float) -> Transitions:
    """Episodes of two steps with these returns, from these starts."""
    rng = np.random.default_rng(0)
    episodes = []
    for number, total in enumerate(returns):
        obs = rng.normal(size=(3, spec.obs_dim))
        obs[0] = obs[0] if starts is None else starts[number]
        action = rng.integers(4, size=2) if spec.discrete else rng.uniform(-1, 1, (2, spec.action_dim))
        episodes.append({"observations": obs, "actions": action, "rewards": [0.0, total]})
    return from_episodes("mine/facts-v0", spec, episodes, **references)


def test_the_best_tenth_leads_in_units_of_the_references() -> None:
    found = facts.coverage(data([0.0] * 90 + [100.0] * 10, **REFERENCES))
    # 100 against a mean of 10, of 200, up to what neighbours add by chance.
    assert found["coverage"] == pytest.approx(0.45, abs=0.05)
    assert found["reach"] == pytest.approx(0.05 + found["coverage"])


def test_what_starts_explain_is_no_lead() -> None:
    starts, other = np.repeat(np.linspace(-1, 1, 100)[:, None], 3, 1), np.random.default_rng(0).permutation(100)
    returns = 100 * starts[:, 0]
    lucky, able = (facts.coverage(data(own, starts, **REFERENCES))["coverage"] for own in (returns, returns[other]))
    assert lucky < 0.1 < 0.4 < able


def test_without_references_the_unit_is_the_size_of_a_return() -> None:
    assert facts.coverage(data([50.0] * 90 + [150.0] * 10)) == {"coverage": pytest.approx(1.5, abs=0.15)}


@pytest.mark.parametrize("returns", [[1.0] * 5, [0.0] * 50])
def test_of_few_episodes_or_no_rewards_nothing_is_said(returns: list[float]) -> None:
    assert facts.coverage(data(returns)) == {}


@pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def test_the_distance_of_a_policy_is_in_spreads_of_the_data(spec: Spec) -> None:
    steps = facts.Steps(data(np.zeros(1000), spec=spec))
    actions = steps.batch.action
    of_others = actions.roll(1, 1)
    same, apart = steps.distances(torch.cat([actions, of_others]))
    assert same == 0
    assert apart == pytest.approx(2**0.5, abs=0.05)


def test_observations_that_are_too_wide_are_left_alone() -> None:
    wide = Spec(obs_dim=facts.WIDEST + 1, num_actions=4)
    assert facts.Steps(data([1.0, 2.0], spec=wide)).likeness() is None


def test_how_far_actions_are_from_others_that_are_all_alike_is_not_said() -> None:
    steps = facts.Steps(data([0.0] * 10))
    steps.batch.action.fill_(0.25)
    same, other = steps.batch.action, steps.batch.action + 0.1
    assert not np.isfinite(steps.distances(torch.cat([same, other]))).any()
