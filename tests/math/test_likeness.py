"""Steps that go as those of the data are told from steps that do not."""

import pytest
import torch
from torch import Tensor

from awr_exp.math.likeness import Likeness

G = torch.Generator().manual_seed(0)


def steps(count: int, pull: float = 0.5, inputs: int = 3) -> tuple[Tensor, Tensor]:
    """A system with a product in it, and some noise: what it is pushed by, and how its two numbers change."""
    x = torch.randn(count, inputs, generator=G, dtype=torch.float64)
    change = torch.stack([pull * x[:, 0] + 0.1 * x[:, 2], 0.3 * x[:, 0] * x[:, 1]], 1)
    return x, change + 0.01 * torch.randn(change.shape, generator=G, dtype=torch.float64)


@pytest.mark.parametrize("inputs", [3, 40])
def test_only_other_dynamics_are_foreign(inputs: int) -> None:
    """Of 40 inputs, products are too many, and noise for a model without them."""
    known = Likeness.fit(*steps(4000, inputs=inputs))
    assert known.foreign(*steps(1000, inputs=inputs)) < 0.02
    assert known.foreign(*steps(1000, pull=3.0, inputs=inputs)) > 0.3


def test_what_hardly_ever_changes_is_no_reason() -> None:
    x, change = steps(4000)
    change[:, 1] = 0
    known = Likeness.fit(x, change)
    assert known.foreign(x, change + 1e-9) < 0.02
