"""Weightings that follow the advantages: their running averages, bounds and shares."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from awr_exp.math import weights
from awr_exp.math.adaptive import AdaptiveESS, AdaptiveKL
from awr_exp.math.conditioned import Conditioned
from awr_exp.math.members import about
from awr_exp.math.running import ExpRunningScale, Quantile, Running, Sigmoid, quantile
from tests.conftest import make_awr


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 1))
def test_a_quantile_is_the_librarys(numbers: list[float], share: float) -> None:
    ordered = torch.tensor([numbers], dtype=torch.float64).sort(-1).values
    found = quantile(ordered, torch.tensor([[share]], dtype=torch.float64))
    assert_close(found, torch.quantile(ordered, share, dim=-1, keepdim=True), rtol=1e-9, atol=1e-6)


@given(st.floats(1e-3, 1e3), st.floats(0.01, 10))
def test_sigmoid_is_bounded_and_monotone_and_heeds_no_scale(scale: float, beta: float) -> None:
    advantage, one = drawn(2, 300).sort(-1).values, torch.ones(2, 1).double()
    weight = Sigmoid().start(one)(advantage, beta * one, one)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert (weight.diff() >= 0).all()
    spread = torch.quantile(advantage, 0.95, -1, True) - torch.quantile(advantage, 0.05, -1, True)
    assert_close(weight, (advantage / (beta * spread)).sigmoid())
    assert_close(Sigmoid().start(one)(scale * advantage, beta * one, one), weight)


@given(st.floats(1, 100), st.floats(0, 0.9), st.integers(20, 300))
def test_the_best_few_count_and_the_others_have_the_floor(top_percent: float, floor: float, rows: int) -> None:
    advantage, one = drawn(1, rows), torch.ones(1, 1).double()
    weight = Quantile(top_percent, floor).start(one)(advantage, one, one)
    best = weight == 1
    assert abs(int(best.sum()) - top_percent / 100 * rows) <= 1
    assert_close(weight[~best], torch.full_like(weight[~best], floor))
    assert best.all() or advantage[best].min() > advantage[~best].max()


def test_the_threshold_is_that_of_many_batches() -> None:
    one = torch.ones(1, 1).double()
    part = Quantile(10.0).start(one)
    shares = [float(part(batch, one, one).mean()) for batch in drawn(200, 1, 32)]
    assert min(shares) == 0
    assert max(shares) > 0.2
    assert abs(sum(shares) / len(shares) - 0.1) < 0.02


@pytest.mark.parametrize(
    ("advantage", "floor", "said"),
    [
        (drawn(1, 256), 0.2, ""),
        ((drawn(1, 256) > 0.5).double(), 0.2, "28% of the advantages"),
        (torch.ones(1, 8), 0, "100% of the"),
    ],
)
def test_ties_at_the_top_are_said(advantage: Tensor, floor: float, said: str) -> None:
    one = torch.ones_like(advantage[:, :1])
    part = Quantile(10.0, floor).start(one)
    metrics = {"mean_weight": float(part(advantage, one, one).mean())}
    sentences = [sentence for _, sentence in part.warnings(0, metrics)]
    assert len(sentences) == bool(said)
    assert all(f"top_percent=10 is out of reach: {said}" in one for one in sentences)


PARTS: list[tuple[Running, bool, bool]] = [
    (ExpRunningScale(0.1), True, True),
    (Sigmoid(0.1), True, True),
    (Quantile(20.0, 0.1, 0.1), False, True),
    (AdaptiveKL(0.3, 0.1), False, True),
]


@pytest.mark.parametrize(("part", "by_beta", "own_unit"), PARTS)
def test_what_beta_does_is_found_out(part: Running, by_beta: bool, own_unit: bool) -> None:
    column = torch.ones(2, 1)
    assert weights.depends_on_beta(part, column) == by_beta
    assert weights.has_own_unit(part, column) == own_unit
    assert not weights.has_own_unit(weights.exp_clip, column)


def test_weightings_that_compare_the_actions_of_a_batch_are_found_out() -> None:
    def compare(*parts: weights.Weighting) -> list[bool]:
        return [weights.compares(part, torch.ones(2, 1)) for part in parts]

    assert compare(weights.normalized, AdaptiveKL(0.3, 0.1), AdaptiveESS(0.4, 0.1)) == [True] * 3
    assert compare(weights.exp_clip, weights.indicator, weights.constant, Conditioned(0.0, 0.1)) == [False] * 4


@pytest.mark.parametrize("part", [part for part, *_ in PARTS])
def test_batches_at_once_and_a_state_that_is_resumed_are_as_one_after_another(part: Running) -> None:
    batches, one = drawn(6, 2, 40), torch.ones(2, 1).double()
    plain, at_once, resumed = (part.start(one) for _ in range(3))
    expected = torch.stack([plain(batch, one, 20 * one) for batch in batches])
    assert about(at_once).several
    assert torch.equal(at_once(batches, one, 20 * one), expected)
    before = part.start(one)
    before(batches[:3], one, 20 * one)
    for name, tensor in resumed.tensors().items():
        tensor.copy_(before.tensors()[name])
    assert torch.equal(resumed(batches[3:], one, 20 * one), expected[3:])


def test_a_function_says_nothing_of_itself() -> None:
    said = about(weights.exp_clip)
    assert (said.report(), list(said.warnings(0, {})), said.several) == ({}, [], False)


def test_another_weightings_state_is_no_start() -> None:
    """Neither its average nor the batches that it counted, though both have a name in common."""
    advantage = drawn(1, 64)
    scale, cut = make_awr(weighting=Sigmoid()), make_awr(weighting=Quantile(50.0))
    for _ in range(9):
        scale.weights(100 + advantage)
    cut.load_state_dict(scale.state_dict())
    state: Any = cut.state_dict()
    assert float(state["weighting.step"]) == float(state["weighting.threshold"]) == 0
    assert_close(cut.weights(advantage).mean(), torch.tensor(0.5).double())


def test_beta_is_judged_in_the_unit_of_the_weighting() -> None:
    """A beta of 30 is large for advantages of 100, where it is of their own scale."""
    advantage = 100 * drawn(1, 256)
    agent = make_awr(weighting=ExpRunningScale(), beta=30.0)
    metrics = {name: float(value) for name, value in agent.health(advantage, agent.weights(advantage)).items()}
    (sentence,) = dict(agent.warnings(0, metrics)).values()
    assert "beta 30 is very large for advantages that spread by 1:" in sentence
    assert sentence.endswith("compare with agent.beta=1")
