"""Means of metrics that stay on the device until somebody reads them."""

import torch
from torch import Tensor

from awr_exp.types import Metrics


class Means:
    """Sums of what was added since the last report, [K] each, and how many there were of each."""

    def __init__(self) -> None:
        self.sums: Metrics = {}
        self.counts: dict[str, int] = {}

    def add(self, metrics: Metrics, count: int = 1) -> None:
        """Add the metrics of one step, or the sums of those of `count` steps."""
        known = [name for name in metrics if name in self.sums]
        if known:
            # One call for all: on small networks adding fifteen numbers one by one would be felt.
            torch._foreach_add_([self.sums[name] for name in known], [metrics[name] for name in known])
        self.sums |= {name: value.clone() for name, value in metrics.items() if name not in self.sums}
        for name in metrics:
            self.counts[name] = self.counts.get(name, 0) + count

    def read(self, members: int) -> list[dict[str, float]]:
        """Each member's means since the last call: the only time that training waits for the device."""
        names = sorted(self.sums)
        means = [self.sums[name] / self.counts[name] for name in names]
        table = torch.stack(means, 1).tolist() if names else [[] for _ in range(members)]
        self.sums, self.counts = {}, {}
        return [dict(zip(names, values, strict=True)) for values in table]

    def state(self, member: int) -> dict[str, Tensor]:
        """What a checkpoint of a member needs of the sums; the counts are everybody's."""
        return {f"sums.{name}": value[member : member + 1] for name, value in self.sums.items()}

    def load(self, state: dict[str, Tensor], counts: dict[str, int] | int) -> None:
        """Go on from the `state` of all members; counts: of each metric, or of all alike. Raises ValueError or KeyError
        where they do not fit."""
        self.sums = {name.removeprefix("sums."): value for name, value in state.items() if name.startswith("sums.")}
        if any(value.dim() != 1 or not value.is_floating_point() for value in self.sums.values()):
            raise ValueError("its sums of metrics are not one number a member")
        self.counts = {name: counts if isinstance(counts, int) else counts[name] for name in self.sums}
