"""Weightings against their formulas, far beyond where a careless exp overflows."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from awr_exp.math import losses, weights

ADVANTAGES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30)
POSITIVE = st.floats(1e-4, 1e4)


def column(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


@given(ADVANTAGES, POSITIVE, st.floats(1, 1e6))
def test_exp_clip_is_its_formula_and_never_overflows(advantage: list[float], beta: float, limit: float) -> None:
    weight = weights.exp_clip(torch.tensor([advantage], dtype=torch.float64), column(beta), column(limit))
    expected = [min(math.exp(min(a / beta, 700)), limit) for a in advantage]
    assert_close(weight, torch.tensor([expected], dtype=torch.float64), rtol=1e-6, atol=0)


def test_exp_clip_stays_finite_in_float32() -> None:
    weight = weights.exp_clip(torch.tensor([[1e30, -1e30]]), torch.tensor([[1e-4]]), torch.tensor([[20.0]]))
    assert_close(weight, torch.tensor([[20.0, 0.0]]))


@given(ADVANTAGES, POSITIVE)
def test_normalized_has_mean_one_and_the_ratios_of_exp(advantage: list[float], beta: float) -> None:
    a = torch.tensor([advantage], dtype=torch.float64)
    weight = weights.normalized(a, column(beta), column(20))
    assert_close(weight.mean(-1), torch.ones(1, dtype=torch.float64))
    assert_close(weight / weight.max(), ((a - a.max()) / beta).exp())


def test_indicator_and_constant() -> None:
    a = torch.tensor([[-1.0, 0.0, 2.0]])
    assert_close(weights.indicator(a, a, a), torch.tensor([[0.0, 0.0, 1.0]]))
    assert_close(weights.constant(a, a, a), torch.ones(1, 3))


def test_weighted_regression_has_the_gradient_of_the_formula() -> None:
    """d L / d log pi_i = - w_i / B, each member its own."""
    advantage = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    beta, limit = torch.tensor([[0.3], [2.0]]).double(), torch.tensor([[20.0], [1.5]]).double()
    log_prob = torch.zeros(2, 5, dtype=torch.float64, requires_grad=True)
    weight = weights.exp_clip(advantage, beta, limit)
    losses.weighted(-log_prob, weight).sum().backward()
    expected = torch.minimum((advantage / beta).exp(), limit)
    assert log_prob.grad is not None
    assert_close(log_prob.grad, -expected / 5)


def test_effective_sample_size_counts_equal_rows() -> None:
    weight = torch.zeros(3, 8)
    weight[0], weight[1, :2] = 7.0, 3.0
    assert_close(weights.effective_sample_size(weight), torch.tensor([1.0, 0.25, 0.0]))
    assert_close(weights.kl_behavior(weight[:2]), torch.tensor([0.0, math.log(4)]))


def test_shares_of_the_limit_and_of_nothing() -> None:
    limit = torch.tensor([[20.0]])
    weight = weights.exp_clip(torch.tensor([[9.0, 9.0, 0.0, -9.0]]), torch.tensor([[0.3]]), limit)
    found = weights.health(weight, limit)
    assert (found["clipped"].tolist(), found["zero_weight"].tolist()) == ([0.5], [0.25])


def test_standardize() -> None:
    a = weights.standardize(torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]], dtype=torch.float64))
    assert_close(a.mean(-1), torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    assert_close(a.std(-1, correction=0), torch.tensor([1.0, 0.0]).double(), atol=1e-4, rtol=0)


def test_a_wrong_shape_is_refused_instead_of_broadcast() -> None:
    with pytest.raises(ValueError, match="expected two tensors"):
        losses.mean_squared_error(torch.zeros(1, 4), torch.zeros(1, 4, 1))
