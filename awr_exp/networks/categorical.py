"""The policy head of discrete actions."""

from typing import Any

import torch
from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.networks import numpy_policy
from awr_exp.networks.head import Extra, Likelihood
from awr_exp.ranges import NotNegative
from awr_exp.types import Spec

NEVER = -1e9
"""A logit of what is never chosen; it is finite, for 0 times infinity is no number."""


class Categorical(Likelihood):
    """One of the choices that there are of each number of a discrete action, drawn independently of the others.

    Half of logit_penalty times the squared logits is added to the loss. Raises UserError for a continuous action space.
    """

    differentiable = False

    def __init__(self, spec: Spec, logit_penalty: NotNegative = 0.0) -> None:
        if not spec.discrete:
            raise UserError(
                f"head=categorical needs discrete actions; this task has {spec.action_dim} continuous ones: "
                "use head=auto or head=gaussian"
            )
        self.outputs, self.logit_penalty = sum(spec.counts), logit_penalty
        self.noise = 2 * self.outputs
        self.single, self.width = spec.action_shape == (), max(spec.counts)
        # Numbers with fewer choices than others get logits that count for nothing.
        own = torch.arange(self.width) < torch.tensor(spec.counts).unsqueeze(-1)
        self.even = bool(own.all())
        self.place = (torch.cumsum(own.flatten(), 0) - 1).clamp(min=0)
        self.absent = torch.where(own, 0, NEVER)

    def _each(self, outputs: Tensor) -> Tensor:
        """The logits of each number's choices, [..., n, most choices], from those of all of them, [..., outputs]."""
        if self.even:
            return outputs.unflatten(-1, (-1, self.width))
        every = outputs.index_select(-1, self.place.to(outputs.device)).unflatten(-1, (-1, self.width))
        return every + self.absent.to(every)

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        chosen = action.unsqueeze(-1).unsqueeze(-1) if self.single else action.unsqueeze(-1)
        return self._each(outputs).log_softmax(-1).gather(-1, chosen).squeeze(-1).sum(-1)

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K, B] nats."""
        log_prob = self._each(outputs).log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1).sum(-1)

    def penalty(self, outputs: Tensor, extra: Extra) -> Tensor:
        return 0.5 * self.logit_penalty * outputs.square().sum(-1).mean(-1)

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        if noise is not None:
            # An exponential race, won by choice a with probability softmax(outputs)_a: half the sum of two squared
            # normal numbers is an exponential one.
            outputs = outputs - noise.square().unflatten(-1, (2, -1)).sum(-2).log()
        chosen = self._each(outputs).argmax(-1)
        return chosen.squeeze(-1) if self.single else chosen

    def numpy(self, extra: Extra) -> numpy_policy.NumpyHead:
        if self.single:
            return numpy_policy.choose
        return numpy_policy.Choices(self.place.cpu().numpy(), self.absent.cpu().numpy())

    def native(self, extra: Extra) -> dict[str, Any] | None:
        return {"loss": "categorical", "penalty": self.logit_penalty} if self.single else None
