"""Means of metrics: sums that do not depend on how many steps come at once."""

import torch

from awr_exp.training.means import Means


def test_steps_added_at_once_are_those_added_one_by_one_to_the_bit() -> None:
    g = torch.Generator().manual_seed(0)
    metrics = {name: torch.randn(7, 2, generator=g) for name in ("loss", "weight")}
    each, at_once = Means(), Means()
    for number in range(7):
        each.add({name: column[number] for name, column in metrics.items()})
    for part in (slice(0, 3), slice(3, 7)):
        at_once.add_each({name: column[part] for name, column in metrics.items()})
    assert at_once.counts == each.counts == {"loss": 7, "weight": 7}
    for name, value in each.sums.items():
        assert torch.equal(at_once.sums[name], value)
