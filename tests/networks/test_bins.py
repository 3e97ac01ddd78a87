"""Bins are a density in the units of the action, from which actions are drawn."""

import math

import pytest
import torch
from torch.testing import assert_close

from awr_exp.errors import UserError
from awr_exp.networks.bins import CategoricalBins
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS

G = torch.Generator().manual_seed(0)
BINS = 5
HEAD = CategoricalBins(CONTINUOUS, BINS)
LOW, SPAN = torch.tensor(CONTINUOUS.action_low), torch.tensor([2.0, 6.0])


def outputs(rows: int) -> torch.Tensor:
    return torch.randn(1, 1, HEAD.outputs, generator=G).expand(1, rows, -1)


def test_the_density_integrates_to_1_and_its_entropy_is_that_integral() -> None:
    count = 10 * BINS
    middles = (torch.arange(count) + 0.5) / count
    grid = LOW + SPAN * torch.cartesian_prod(middles, middles)
    given = outputs(len(grid))
    log_prob = HEAD.log_prob(given, {}, grid.unsqueeze(0))
    cell = float(SPAN.prod()) / count**2
    assert_close(log_prob.exp().sum() * cell, torch.tensor(1.0))
    entropy = HEAD.entropy(given, {})[0, 0]
    assert_close(-(log_prob.exp() * log_prob).sum() * cell, entropy)
    assert_close(HEAD.report(given, {})["entropy"][0], entropy)
    even = HEAD.entropy(torch.zeros(1, 1, HEAD.outputs), {}).item()
    assert even == pytest.approx(math.log(12))


def test_the_action_of_evaluation_is_the_centre_of_the_most_probable_part_of_each_entry() -> None:
    given = torch.zeros(1, 1, 2, BINS)
    given[..., 0, 4] = given[..., 1, 0] = 1
    assert_close(HEAD.act(given.flatten(2), {}, None), torch.tensor([[[0.8, -1.4]]]))


def test_samples_have_the_density() -> None:
    given = outputs(50_000)
    noise = torch.randn(1, 50_000, HEAD.noise, generator=G)
    place = (HEAD.act(given, {}, noise)[0] - LOW) / SPAN * BINS
    shares = given[0, 0].unflatten(-1, (2, BINS)).softmax(-1)
    for entry in range(2):
        found = torch.bincount(place[:, entry].long().clamp(0, BINS - 1), minlength=BINS) / 50_000
        assert_close(found, shares[entry], atol=0.01, rtol=0)
        # Even within a part.
        assert_close((place[:, entry] % 1).mean(), torch.tensor(0.5), atol=0.01, rtol=0)
    assert torch.corrcoef(place.T)[0, 1].abs() < 0.02


def test_data_on_the_bounds_have_a_density_and_an_entry_without_a_choice_is_no_part_of_it() -> None:
    given = outputs(2)
    ends = torch.stack([LOW, LOW + SPAN]).unsqueeze(0)
    centres = LOW + SPAN * torch.tensor([[0.5], [BINS - 0.5]]) / BINS
    assert_close(HEAD.log_prob(given, {}, ends), HEAD.log_prob(given, {}, centres.unsqueeze(0)))
    fixed = CategoricalBins(Spec(3, 3, None, (-1.0, 0.5, -2.0), (1.0, 0.5, 4.0)), BINS)
    first, last = given.unflatten(-1, (2, BINS)).unbind(-2)
    wider = torch.cat([first, torch.randn(1, 2, BINS, generator=G), last], -1)
    half = torch.full((1, 2, 1), 0.5)
    assert_close(
        fixed.log_prob(wider, {}, torch.cat([ends[..., :1], half, ends[..., 1:]], -1)), HEAD.log_prob(given, {}, ends)
    )
    assert_close(fixed.entropy(wider, {}), HEAD.entropy(given, {}))
    for noise in (None, torch.randn(1, 2, fixed.noise, generator=G)):
        assert (fixed.act(wider, {}, noise)[..., 1] == 0.5).all()


def test_actions_without_bounds_are_refused() -> None:
    with pytest.raises(UserError, match="head=categorical_bins needs finite action bounds on both sides; use head=gau"):
        CategoricalBins(Spec(3, 1, None, (0.0,), (math.inf,)))
