"""What K members normalise their observations by."""

import torch
from torch import Tensor

from awr_exp.layout import Entries
from awr_exp.math.members import Stateful
from awr_exp.math.observations import LIMIT, normalize


def units(mean: Tensor, variance: Tensor, entries: Entries) -> tuple[Tensor, Tensor]:
    """What to normalise by, [..., obs_dim] both, where these are the statistics of the data.

    entries: the parts of an observation; all numbers of an image are normalised alike, as its pixels mean the same
    everywhere.
    """
    widths = [entry.width for entry in entries]
    parts = zip(entries, mean.split(widths, -1), variance.split(widths, -1), strict=True)
    found = [_together(*own) if entry.is_image else tuple(own) for entry, *own in parts]
    mean, variance = (torch.cat(each, -1) for each in zip(*found, strict=True))
    std = variance.clamp(min=0).sqrt()
    # A constant entry carries nothing: dividing by its rounding noise would turn it into the loudest one.
    return mean, torch.where(std < 1e-6 * (1 + mean.abs()), 1.0, std)


def _together(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The statistics [..., n] of n entries taken together, n times."""
    among = mean.var(-1, keepdim=True, correction=0)
    both = mean.mean(-1, keepdim=True), variance.mean(-1, keepdim=True) + among
    return both[0].expand_as(mean), both[1].expand_as(mean)


class Normalizer(Stateful):
    """Maps observations to units of the data's standard deviation from its mean, for members that want it.

    mean, std: [K, obs_dim]; limit: [K, 1], see `observations.LIMIT`; wanted: [K, 1], nonzero for members that want it.
    Before it is fitted, and for the other members, observations stay as they are.
    """

    learnt = ("mean", "std", "limit")
    # All that is learnt depends on it.
    begins_anew = False

    def __init__(self, wanted: Tensor, obs_dim: int) -> None:
        self.wanted = wanted.bool()
        self.mean = wanted.new_zeros(len(wanted), obs_dim)
        self.std = torch.ones_like(self.mean)
        self.limit = torch.full_like(wanted, torch.inf)

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Normalise by these statistics [obs_dim], or [K, obs_dim], of the data from now on."""
        self.mean.copy_(torch.where(self.wanted, mean, 0))
        self.std.copy_(torch.where(self.wanted, std, 1))
        self.limit.copy_(torch.where(self.wanted, LIMIT, torch.inf))

    def __call__(self, obs: Tensor) -> Tensor:
        """[K, B, obs_dim] or [B, obs_dim], in the data's units, to [K, B, obs_dim]."""
        mean, std, limit = (each.unsqueeze(1) for each in (self.mean, self.std, self.limit))
        return normalize(obs, mean, std, limit)
