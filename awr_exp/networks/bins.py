"""Bins as a policy head: a histogram for each entry of the action."""

import math

import torch
from torch import Tensor

from awr_exp.networks.head import Continuous, Extra, Likelihood
from awr_exp.networks.numpy_policy import Histogram, NumpyHead
from awr_exp.ranges import Count
from awr_exp.types import Spec


class CategoricalBins(Continuous, Likelihood):
    """A density for each entry of the action, by itself, that is constant within each of `bins` equal parts.

    The parts lie between the bounds; the network gives the logarithm of their shares. The action of evaluation is the
    centre of the most probable part. Raises UserError where an action is unbounded.
    """

    # Which part is the most probable is chosen, and that choice has no gradient.
    differentiable = False

    def __init__(self, spec: Spec, bins: Count = 21) -> None:
        super().__init__(spec)
        self.need_bounds("categorical_bins")
        self.bins, self.outputs, self.noise = bins, bins * spec.action_dim, 2 * spec.action_dim

    def _log_shares(self, outputs: Tensor) -> Tensor:
        """[K, B, action_dim, bins]."""
        return outputs.unflatten(-1, (-1, self.bins)).log_softmax(-1)

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        """[K, B], in the units of the action."""
        share = (self.in_units(action, outputs) + 1) / 2
        # What is on the upper bound, or by rounding beyond one, is in the part beside it.
        part = (share * self.bins).long().clamp(0, self.bins - 1)
        log_share = self._log_shares(outputs).gather(-1, part.unsqueeze(-1)).squeeze(-1)
        return self.total(log_share) - self.choices * math.log(2 / self.bins) - self.log_scale

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K, B] nats."""
        log_shares = self._log_shares(outputs)
        each = -(log_shares.exp() * log_shares).sum(-1)
        return self.total(each) + self.choices * math.log(2 / self.bins) + self.log_scale

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        """A sample is where the distribution function has an even draw: somewhere within a part."""
        log_shares = self._log_shares(outputs)
        if noise is None:
            return self.to_action((2 * log_shares.argmax(-1).to(outputs) + 1) / self.bins - 1)
        one, other = noise.chunk(2, -1)
        # The direction of two normal numbers is evenly distributed.
        drawn = (torch.atan2(one, other) / (2 * math.pi) % 1).unsqueeze(-1)
        shares = log_shares.exp()
        within = (drawn - (shares.cumsum(-1) - shares)) / shares.clamp(min=1e-12)
        # Parts before the one that it is in are passed by whole, and those behind it not at all.
        return self.to_action(2 * within.clamp(0, 1).sum(-1) / self.bins - 1)

    def numpy(self, extra: Extra) -> NumpyHead:
        centre, scale = (each.cpu().float().numpy() for each in (self.centre, self.scale))
        return Histogram(self.bins, centre, scale)
