"""What K members normalise their observations by."""

import torch
from torch import Tensor

from awr_exp.layout import Entries
from awr_exp.math.members import Stateful
from awr_exp.math.observations import LIMIT, normalize


class Normalizer(Stateful):
    """Maps observations to units of the data's standard deviation from its mean, for members that want it.

    mean, std: [K, obs_dim]; limit: [K, 1], see `observations.LIMIT`; wanted: [K, 1], nonzero for members that want it;
    entries: the parts of an observation, of which those that are kept as bytes, such as images, are divided by 255
    instead. Before it is fitted all else stays as it is, and for the other members everything does.
    """

    learnt = ("mean", "std", "limit")
    # All that is learnt depends on it.
    begins_anew = False

    def __init__(self, wanted: Tensor, entries: Entries) -> None:
        columns = [entry.kept == "uint8" for entry in entries for _ in range(entry.width)]
        self.wanted = wanted.bool()
        self.bytes = self.wanted & torch.tensor(columns, device=wanted.device)
        self.mean = wanted.new_zeros(self.bytes.shape)
        self.std = torch.where(self.bytes, 255, torch.ones_like(self.mean))
        self.limit = torch.full_like(wanted, torch.inf)

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Normalise by these statistics [obs_dim], or [K, obs_dim], of the data from now on."""
        learnt = self.wanted & ~self.bytes
        self.mean.copy_(torch.where(learnt, mean, 0))
        self.std.copy_(torch.where(learnt, std, torch.where(self.bytes, 255, 1)))
        self.limit.copy_(torch.where(self.wanted, LIMIT, torch.inf))

    def __call__(self, obs: Tensor) -> Tensor:
        """[K, B, obs_dim] or [B, obs_dim], in the data's units, to [K, B, obs_dim]."""
        mean, std, limit = (each.unsqueeze(1) for each in (self.mean, self.std, self.limit))
        return normalize(obs, mean, std, limit)
