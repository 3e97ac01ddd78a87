"""Estimators against one another and against a loop written from the definition."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from awr_exp.math.advantages import LambdaReturn, NStep, lambda_return, n_step_return, reverse_scan

GAMMA = 0.9


def episodes(seed: int, rows: int, members: int = 2) -> dict[str, Tensor]:
    """Whole, truncated and cut episodes of random lengths, laid end to end."""
    g = torch.Generator().manual_seed(seed)
    last = torch.rand(rows, generator=g) < 0.2
    last[-1] = True
    terminated = last & (torch.rand(rows, generator=g) < 0.5)
    return {
        "reward": torch.randn(rows, generator=g, dtype=torch.float64),
        "discount": (GAMMA * ~terminated).double().expand(members, rows),
        "next_value": torch.randn(members, rows, generator=g, dtype=torch.float64),
        "last": last,
    }


def walk(data: dict[str, Tensor], steps: int) -> Tensor:
    """The n-step target, one row at a time, from its definition."""
    reward, discount, value, last = (data[name].tolist() for name in ("reward", "discount", "next_value", "last"))
    rows = len(reward)
    out = [[0.0] * rows for _ in discount]
    for k, own in enumerate(discount):
        for t in range(rows):
            gain = 1.0
            for i in range(t, min(t + steps, rows)):
                out[k][t] += gain * reward[i]
                gain *= own[i]
                if last[i] or i == t + steps - 1:
                    out[k][t] += gain * value[k][i]
                    break
    return torch.tensor(out, dtype=torch.float64)


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 70))
def test_n_step_is_its_definition(seed: int, rows: int, n: int) -> None:
    data = episodes(seed, rows)
    assert_close(n_step_return(**data, n=n), walk(data, n))


@given(st.integers(0, 10_000), st.integers(1, 60))
def test_n_step_meets_td_and_monte_carlo_at_its_ends(seed: int, rows: int) -> None:
    data = episodes(seed, rows)
    assert_close(n_step_return(**data, n=1), lambda_return(**data, lam=0.0))
    assert_close(n_step_return(**data, n=rows), lambda_return(**data, lam=1.0))


@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0, 1))
def test_lambda_return_is_the_geometric_mean_of_n_step_returns(seed: int, rows: int, lam: float) -> None:
    """An independent form: (1 - lambda) sum lambda^(n-1) G^(n), what is left going to the longest."""
    data = episodes(seed, rows)
    mixed = lam**rows * walk(data, rows)
    for n in range(1, rows + 1):
        mixed = mixed + (1 - lam) * lam ** (n - 1) * walk(data, n)
    assert_close(lambda_return(**data, lam=lam), mixed)


def gae(reward: Tensor, discount: Tensor, value: Tensor, next_value: Tensor, last: Tensor, lam: float) -> Tensor:
    """Generalised advantage (Schulman et al. 2016, eq. 16): the sum of (discount lambda)^l delta_{t+l}."""
    return reverse_scan(reward + discount * next_value - value, discount * lam * ~last)


@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0, 1))
def test_gae_is_the_lambda_return_minus_the_value(seed: int, rows: int, lam: float) -> None:
    data = episodes(seed, rows)
    # One critic: the value of a row is the next value of the row before it inside an episode.
    value = torch.randn(2, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    inside = ~data["last"][:-1]
    data["next_value"] = data["next_value"].clone()
    data["next_value"][:, :-1] = torch.where(inside, value[:, 1:], data["next_value"][:, :-1])
    assert_close(gae(**data, value=value, lam=lam), lambda_return(**data, lam=lam) - value)


def test_an_episode_does_not_see_its_neighbours() -> None:
    data = episodes(3, 50)
    first = int(data["last"].nonzero()[0]) + 1
    alone = {name: tensor[..., :first] for name, tensor in data.items()}
    for lam in (0.0, 0.7, 1.0):
        assert_close(lambda_return(**data, lam=lam)[:, :first], lambda_return(**alone, lam=lam))
    assert_close(n_step_return(**data, n=4)[:, :first], n_step_return(**alone, n=4))


def test_only_termination_stops_the_bootstrap() -> None:
    reward = torch.tensor([1.0, 1.0])
    last = torch.tensor([False, True])
    value = torch.tensor([[0.0, 10.0]])
    for estimate in (
        lambda d: lambda_return(reward, d, value, last, 1.0),
        lambda d: n_step_return(reward, d, value, last, 5),
    ):
        assert_close(estimate(torch.tensor([[0.5, 0.5]])), torch.tensor([[1 + 0.5 * (1 + 0.5 * 10), 6.0]]))
        assert_close(estimate(torch.tensor([[0.5, 0.0]])), torch.tensor([[1.5, 1.0]]))


@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0, 1))
def test_the_longest_episode_bounds_the_scan(seed: int, rows: int, lam: float) -> None:
    data = episodes(seed, rows)
    ends = torch.cat([torch.tensor([-1]), data["last"].nonzero().flatten()])
    longest = int(ends.diff().max())
    assert_close(lambda_return(**data, lam=lam, longest=longest), lambda_return(**data, lam=lam))
    assert_close(NStep(1000)(**data, longest=longest), n_step_return(**data, n=1000))


def test_members_may_differ_in_lambda() -> None:
    data = episodes(5, 40)
    both = LambdaReturn([0.2, 0.9])(**data)
    assert_close(both[:1], LambdaReturn(0.2)(**data)[:1])
    assert_close(both[1:], LambdaReturn(0.9)(**data)[1:])
    with pytest.raises(ValueError, match="3 values for 2 members"):
        LambdaReturn([0.1, 0.2, 0.3])(**data)


def test_reverse_scan_is_the_recurrence() -> None:
    g = torch.Generator().manual_seed(0)
    x, decay = (torch.randn(3, 37, dtype=torch.float64, generator=g) for _ in range(2))
    y = torch.zeros(3, dtype=torch.float64)
    for t in reversed(range(37)):
        y = x[:, t] + decay[:, t] * y
        assert_close(reverse_scan(x, decay)[:, t], y)
