"""Numbers of many numbers: whatever the pieces are, they are those of the whole."""

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from awr_exp.data.columns import columns, falls_between, histogram, keys, on_bounds, repeated

NUMBERS = st.floats(-1e6, 1e6, width=32)
TABLES = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=NUMBERS)


@settings(max_examples=20)
@given(TABLES, st.integers(1, 12))
def test_pieces_say_what_the_whole_says(table: np.ndarray, size: int) -> None:
    found = columns(torch.from_numpy(table).split(size))
    exact = table.astype(np.float64)
    assert found.count == len(table)
    np.testing.assert_array_equal(found.low, exact.min(0))
    np.testing.assert_array_equal(found.high, exact.max(0))
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(found.std, exact.std(0), rtol=1e-9, atol=1e-8)
    assert ((found.std == 0) | (found.low < found.high)).all()


def test_how_far_the_farthest_number_is() -> None:
    table = torch.zeros(10_000, 2)
    table[0, 0] = 1.0
    found = columns([table])
    # Of one among N it is the root of N - 1.
    np.testing.assert_allclose(found.farthest, [9_999**0.5, 0.0])


@settings(max_examples=20)
@given(arrays(np.float64, st.integers(1, 50), elements=st.floats(-1e9, 1e9)), st.integers(1, 30))
def test_a_histogram_has_every_number_once(values: np.ndarray, bins: int) -> None:
    edges, counts = histogram(values, bins)
    assert sum(counts) == len(values)
    assert edges[0] <= values.min() <= values.max() <= edges[-1]
    assert edges == sorted(edges)
    assert len(edges) == len(counts) + 1 == len(falls_between(edges)) + 1
    assert len(counts) <= bins + 2


def test_edges_of_a_histogram_are_round() -> None:
    assert histogram(np.array([-1763.9, -0.45]), 10)[0] == [float(edge) for edge in range(-1800, 1, 200)]
    assert falls_between([0.0, 0.25, 0.5]) == ["0 to 0.25", "0.25 to 0.5"]
    assert histogram(np.array([7.0, 7.0]), 10) == ([7.0, 7.0], [2])
    assert falls_between([7.0, 7.0]) == ["7"]


@settings(max_examples=20)
@given(arrays(np.float32, st.tuples(st.integers(1, 20), st.just(2)), elements=st.sampled_from([0.0, 1.0, 2.5])))
def test_rows_that_are_there_twice_are_counted(table: np.ndarray) -> None:
    distinct = {row.tobytes() for row in table}
    assert repeated(keys(table)) == len(table) - len(distinct)
    assert repeated(keys(np.concatenate([table, table]))) == 2 * len(table) - len(distinct)


@settings(max_examples=20)
@given(arrays(np.float32, st.tuples(st.integers(1, 8), st.just(3)), elements=st.floats(-1, 1, width=32)))
def test_the_bounds_are_found_on_both_sides(action: np.ndarray) -> None:
    low, high = torch.tensor([-1.0, -torch.inf, 0.5]), torch.tensor([1.0, 1.0, 0.5])
    assume((np.abs(np.abs(action) - 1) > 1e-3).all())
    action[0] = 1.0
    at_low, at_high = on_bounds(torch.from_numpy(action), low, high, 1e-4)
    # An entry without a choice is on no bound, and an infinite bound is never reached.
    assert at_low.sum() == 0
    assert at_high.double().sum(0).tolist() == [1.0, 1.0, 0.0]
    mirrored = on_bounds(torch.from_numpy(-action[:, :1]), low[:1], high[:1], 1e-4)
    assert torch.equal(mirrored[0], at_high[:, :1])
