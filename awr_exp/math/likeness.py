"""Whether steps go as those of a data set do: a small model of how observations change, and how far it is off."""

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_FEATURES = 500
"""Products of two inputs are among the features while these are no more."""
FLOOR = 0.01
"""Spread of a change that counts as noise: a model that is exact would call any rounding foreign."""


@dataclass(frozen=True)
class Likeness:
    """A ridge regression of the change of normalised observations on them, the actions, and products of two.

    weight: [features, obs_dim]; scale: [obs_dim], the mean squared error on data that were not learnt from; limit:
    twice the 99th percentile of a step's error there.
    """

    weight: Tensor
    scale: Tensor
    limit: Tensor

    @classmethod
    def fit(cls, inputs: Tensor, change: Tensor) -> "Likeness":
        """Learn from one half of the steps, and judge by the other.

        inputs: [N, obs_dim + action_dim] of order 1; change: [N, obs_dim]; both in any order but that of time.
        """
        features, half = _features(inputs), len(inputs) // 2
        x, y = features[:half], change[:half]
        ridge = 1e-4 * half * torch.eye(x.shape[1]).to(x)
        weight = torch.linalg.solve(x.mT @ x + ridge, x.mT @ y)
        error = (features[half:] @ weight - change[half:]).square()
        scale = (error.mean(0) + (FLOOR * change.std(0)).square()).clamp(min=1e-12)
        return cls(weight, scale, 2 * (error / scale).mean(1).quantile(0.99))

    def foreign(self, inputs: Tensor, change: Tensor) -> float:
        """The share of steps that go as none of a hundred steps of the data does."""
        error = (_features(inputs) @ self.weight - change).square() / self.scale
        return float((error.mean(1) > self.limit).double().mean())


def _features(inputs: Tensor) -> Tensor:
    """[N, I] to [N, features]: 1, the inputs, and their products where these are not too many."""
    count = inputs.shape[1]
    parts = [torch.ones_like(inputs[:, :1]), inputs]
    if 1 + count + count * (count + 1) // 2 <= MOST_FEATURES:
        one, other = torch.triu_indices(count, count)
        parts.append(inputs[:, one] * inputs[:, other])
    return torch.cat(parts, 1)
