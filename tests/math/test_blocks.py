"""What is put together from parts."""

import weakref
from collections.abc import Iterator

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from awr_exp.math.blocks import side_by_side


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.sampled_from([(), (3,)]))
def test_parts_come_to_lie_side_by_side_and_are_given_up(widths: list[int], rest: tuple[int, ...]) -> None:
    """At most one of them is kept while the next one is made: memory of many would be lost between them."""
    made: list[Tensor] = [torch.randn(2, width, *rest, dtype=torch.float64) for width in widths]
    alive: list[weakref.ref[Tensor]] = []

    def parts() -> Iterator[Tensor]:
        for one in made:
            assert sum(ref() is not None for ref in alive) <= 1
            part = one.clone()
            alive.append(weakref.ref(part))
            yield part
            del part

    whole = side_by_side(parts(), sum(widths))
    assert torch.equal(whole, torch.cat(made, 1))
    assert whole.dtype == torch.float64
