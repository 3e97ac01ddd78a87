"""Temperatures that set themselves do what is asked of them, on advantages of any kind, or say that none can."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from awr_exp.math import weights
from awr_exp.math.adaptive import GRID, Adaptive, AdaptiveESS, AdaptiveKL
from awr_exp.math.members import started
from tests.conftest import make_awr

NO_LIMIT = 1e9
KINDS = ("gaussian", "heavy-tailed", "skewed to the best", "skewed to the worst", "few winners", "few crashes")


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).unsqueeze(-1)


def drawn(kind: str, *shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    normal, other = (torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(2))
    return {
        "gaussian": normal,
        "heavy-tailed": normal / other.abs().clamp(min=0.02),
        "skewed to the best": normal.exp(),
        "skewed to the worst": -normal.exp(),
        "few winners": (other > 1).double() + 0.01 * normal,
        "few crashes": torch.where(other > 2, -1e5, normal),
    }[kind]


def weigh(weighting: Any, advantage: Tensor, limit: float = NO_LIMIT) -> tuple[Tensor, Tensor]:
    """The weights of a first batch, and the beta that was solved for it."""
    one = torch.ones_like(advantage[:, :1])
    part = started(weighting, one)
    return part(advantage, one, limit * one), part.report()["beta"]


@given(st.sampled_from(KINDS), st.floats(0.03, 0.98), st.integers(0, 99))
def test_the_effective_sample_size_is_the_target(kind: str, target: float, seed: int) -> None:
    weight, _ = weigh(AdaptiveESS(target), drawn(kind, 2, GRID, seed=seed))
    assert_close(weights.effective_sample_size(weight), torch.full((2,), target).double(), rtol=0.02, atol=0)
    assert_close(weight.mean(-1), torch.ones(2).double())


@given(st.sampled_from(KINDS), st.floats(0.01, 1.5), st.integers(0, 99))
def test_the_divergence_is_epsilon(kind: str, epsilon: float, seed: int) -> None:
    weight, _ = weigh(AdaptiveKL(epsilon), drawn(kind, 2, GRID, seed=seed))
    assert_close(weights.kl_behavior(weight), torch.full((2,), epsilon).double(), rtol=0.02, atol=0)
    assert_close(weight.mean(-1), torch.ones(2).double())


@given(st.sampled_from(KINDS), st.floats(-100, 100), st.floats(1e-3, 1e3), st.integers(32, 300))
def test_shift_and_scale_change_beta_alone(kind: str, shift: float, scale: float, rows: int) -> None:
    advantage = drawn(kind, 1, rows)
    for weighting in (AdaptiveESS(), AdaptiveKL()):
        weight, beta = weigh(weighting, advantage, 20)
        moved, scaled = weigh(weighting, shift + scale * advantage, 20)
        assert_close(moved, weight, rtol=1e-5, atol=1e-8)
        assert_close(scaled, scale * beta, rtol=1e-6, atol=0)


def test_gaussian_advantages_have_the_temperatures_of_the_formulas() -> None:
    """ESS = exp(-sigma^2 / beta^2) and KL = sigma^2 / (2 beta^2), whatever the size of a batch that is large enough."""
    share = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    advantage = 5 + 3 * math.sqrt(2) * torch.erfinv(2 * share - 1)
    for one in (advantage, advantage[torch.randperm(len(advantage))[:50_000]]):
        for weighting, units in (
            (AdaptiveESS(0.37), 1 / math.sqrt(-math.log(0.37))),
            (AdaptiveESS(0.9), 1 / math.sqrt(-math.log(0.9))),
            (AdaptiveKL(0.5), 1.0),
            (AdaptiveKL(0.05), math.sqrt(10)),
        ):
            _, beta = weigh(weighting, one.unsqueeze(0))
            assert_close(beta, torch.tensor([3 * units]).double(), rtol=0.05, atol=0)


def test_weights_are_bounded_and_never_overflow() -> None:
    for scale in (1e-4, 1.0, 1e15):
        advantage = scale * drawn("heavy-tailed", 2, 64).float()
        weight, _ = weigh(AdaptiveESS(0.05), advantage, 3)
        assert weight.isfinite().all()
        assert weight.min() >= 0
        assert_close(weight.max(), torch.tensor(3.0))


def test_the_average_is_of_batches_one_after_another() -> None:
    """The first ones count alike, later ones by the rate; beta is that of the average, not of the batch."""
    batches = drawn("gaussian", 5, 1, GRID) * column(1, 2, 3, 4, 5).unsqueeze(-1)
    part = AdaptiveESS(0.5, rate=0.4).start(column(1))
    one, expected = column(1), torch.zeros(1, GRID).double()
    for number, batch in enumerate(batches, 1):
        part(batch, one, one * NO_LIMIT)
        expected = expected.lerp(batch.sort(-1).values, max(0.4, 1 / number))
        assert_close(part.quantiles, expected)
        assert_close(part.report()["beta"], weigh(AdaptiveESS(0.5), expected)[1])


@pytest.mark.parametrize("rows", [GRID, 100, 1_000])
def test_members_and_batches_at_once_are_as_alone(rows: int) -> None:
    """To the bit: three members beside one another, and eight batches in one call."""
    batches, one = drawn("skewed to the best", 8, 3, rows), column(1, 1, 1)
    targets, rates = [0.1, 0.5, 0.9], [0.01, 0.5, 1.0]
    together = AdaptiveESS(targets, rates).start(one)
    at_once = together(batches, one, 20 * one)
    assert at_once.shape == batches.shape
    for member, (target, rate) in enumerate(zip(targets, rates, strict=True)):
        alone = AdaptiveESS(target, rate).start(one[:1])
        for number, batch in enumerate(batches):
            weight = alone(batch[member : member + 1], one[:1], 20 * one[:1])
            assert torch.equal(weight[0], at_once[number, member])
            assert torch.equal(alone.report()["beta"][0], together.report()["beta"][number, member])
        for name, tensor in alone.tensors().items():
            assert torch.equal(tensor[0], together.tensors()[name][member]), name


TIES = torch.linspace(-1, 0, GRID).double().unsqueeze(0).clamp(max=-0.25)


@pytest.mark.parametrize(
    ("weighting", "advantage", "said", "share"),
    [
        (AdaptiveESS(0.37), drawn("gaussian", 1, GRID), "", 0.37),
        (
            AdaptiveESS(0.1),
            TIES,
            "target=0.1 .* 25.0% of .* as good as the best, .* size of 0.25 is used",
            0.25,
        ),
        (
            AdaptiveESS(0.002),
            drawn("gaussian", 1, GRID),
            "one of 256 .* size of 0.00391 is used",
            1 / GRID,
        ),
        (
            AdaptiveESS(0.01),
            drawn("gaussian", 1, 16),
            "a single one of 16 advantages has all",
            1 / 16,
        ),
        (
            AdaptiveESS(0.37),
            torch.full((1, 9), 5.1),
            "target=0.37 .* all advantages are the same, and all",
            1.0,
        ),
        (AdaptiveKL(2.0), TIES, "epsilon=2 .* 25.0% .*, and a KL of 1.39 nats is used instead$", 0.25),
        (AdaptiveKL(6.0), drawn("gaussian", 1, GRID), "a KL of 5.55 nats", 1 / GRID),
        (AdaptiveKL(1e-12), drawn("gaussian", 1, GRID), "epsilon=1e-12 .* all nearly equal, and a KL of .*e-06", 1.0),
        (
            AdaptiveESS(0.37),
            1e-9 * drawn("gaussian", 1, GRID),
            "all weights are 1$",
            1.0,
        ),
        (AdaptiveKL(1.0), torch.zeros(1, 9), "all advantages are the same, and all weights are 1$", 1.0),
    ],
)
def test_what_no_beta_reaches_is_said_with_what_is_used_instead(
    weighting: Adaptive, advantage: Tensor, said: str, share: float
) -> None:
    one = torch.ones_like(advantage[:, :1])
    part = weighting.start(one)
    weight = part(advantage, one, NO_LIMIT * one)
    assert weight.isfinite().all()
    assert_close(float(weights.effective_sample_size(weight)), share, rtol=0.02, atol=0)
    found = dict(part.warnings(0, {}))
    assert list(found) == ["out of reach"] * bool(said)
    for sentence in found.values():
        with pytest.raises(AssertionError, match=said):
            raise AssertionError(sentence)


@pytest.mark.parametrize("weighting", [AdaptiveESS(0.001), AdaptiveKL(9.0)])
def test_nothing_is_said_of_advantages_before_there_are_any(weighting: Adaptive) -> None:
    assert not list(weighting.start(column(1)).warnings(0, {}))


def test_an_agent_reports_its_beta_and_warns_of_the_weighting_and_of_no_agent_beta() -> None:
    batch_of = drawn("gaussian", 2, GRID)
    agent = make_awr(seeds=[0, 1], weighting=AdaptiveESS([0.37, 0.001]), beta=1e-3)
    assert not agent.beta_matters
    metrics = agent.health(batch_of, agent.weights(batch_of))
    assert_close(metrics["beta"][0], torch.tensor(0.93).double(), rtol=0.1, atol=0)
    own = [{name: float(value[member]) for name, value in metrics.items()} for member in range(2)]
    assert dict(agent.warnings(0, own[0])) == {}
    assert list(dict(agent.warnings(1, own[1]))) == ["out of reach"]
    assert agent.state_dict().keys() >= {"weighting.quantiles", "weighting.step"}


@pytest.mark.parametrize("weighting", [AdaptiveESS(0.3), AdaptiveKL(0.5)])
def test_batches_without_a_better_action_count_alike(weighting: Any) -> None:
    """However their advantages differ from batch to batch, as of batches of one row."""
    one = torch.ones(2, 1).double()
    own = started(weighting, one)
    for value in (1e-3, -1e-3, 5.0):
        assert_close(own(torch.full((2, 7), value).double(), one, 20 * one), torch.ones(2, 7).double())
