"""The Gaussian policy heads: with a learnt or fixed, an annealed and a squashed one; and what is chosen by the task."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from awr_exp.networks import numpy_policy
from awr_exp.networks.categorical import Categorical
from awr_exp.networks.head import Continuous, Extra, Head, Likelihood
from awr_exp.networks.mlp import size
from awr_exp.ranges import NotNegative, Positive, Std
from awr_exp.types import Spec

MANY_AT_BOUNDS = 0.05
"""Share of the data's actions on their bounds above which a squashed policy warns."""
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Gaussian(Continuous, Likelihood):
    """Independent normal for each entry of the action; see `Continuous`.

    std: 'state_independent' (one learnt number an entry), 'state_dependent' (an output of the network), or a
    positive number that stays fixed; bound_penalty: half of this times the squared distance of the mean from the
    bounds is added to the loss. What is learnt of it stays from e^-5 to e^2 in scaled units.
    """

    log_stds = (-5.0, 2.0)
    """Limits of the log standard deviation that is used, whatever is learnt."""

    def __init__(self, spec: Spec, std: Std = "state_independent", bound_penalty: NotNegative = 0.0) -> None:
        super().__init__(spec)
        self.std, self.bound_penalty, self.noise = std, bound_penalty, spec.action_dim
        self.outputs = spec.action_dim * (2 if std == "state_dependent" else 1)
        self.shapes = {"log_std": (1, spec.action_dim)} if std == "state_independent" else {}

    def start(self, generators: Sequence[Generator]) -> Tensor:
        return torch.full((len(generators), size(self.shapes)), -0.5)

    def _moments(self, outputs: Tensor, extra: Extra) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation in scaled units, [K, B, action_dim] and broadcastable to it."""
        if self.std == "state_dependent":
            mean, log_std = outputs.chunk(2, -1)
        elif self.std == "state_independent":
            mean, log_std = outputs, extra["log_std"]
        else:
            return outputs, torch.full_like(outputs[..., :1, :], math.log(float(self.std)))
        return mean, log_std.clamp(*self.log_stds)

    def _normal_log_prob(self, outputs: Tensor, extra: Extra, x: Tensor) -> Tensor:
        """Of x in scaled units, [..., action_dim] to [...]."""
        mean, log_std = self._moments(outputs, extra)
        return self.total(-0.5 * ((x - mean) * (-log_std).exp()).square() - log_std) - HALF_LOG_TWO_PI * self.choices

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        """[K, B], in the units of the action."""
        return self._normal_log_prob(outputs, extra, self.in_units(action, outputs)) - self.log_scale

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K, B] nats; of the Gaussian before squashing where there is a tanh, which has no closed form."""
        mean, log_std = self._moments(outputs, extra)
        per_entry = log_std + 0.5 + HALF_LOG_TWO_PI
        return self.total(per_entry.expand_as(mean)) + self.log_scale

    def penalty(self, outputs: Tensor, extra: Extra) -> Tensor:
        if not self.bound_penalty:
            return super().penalty(outputs, extra)
        mean, _ = self._moments(outputs, extra)
        low, high = (self.in_units(bound.to(outputs), outputs) for bound in (self.low, self.high))
        outside = mean - mean.clamp(low, high)
        return 0.5 * self.bound_penalty * self.total(outside.square()).mean(-1)

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        mean, log_std = self._moments(outputs, extra)
        return self.to_action(mean if noise is None else mean + log_std.exp() * noise)

    def numpy(self, extra: Extra, squash: bool = False) -> numpy_policy.NumpyHead:
        std = None
        if self.std == "state_independent":
            std = np.exp(np.clip(extra["log_std"].numpy(), *self.log_stds))
        elif self.std != "state_dependent":
            std = np.full([1, 1, self.action_dim], self.std, np.float32)
        centre, scale = (each.cpu().float().numpy() for each in (self.centre, self.scale))
        return numpy_policy.Normal(std, self.log_stds, centre, scale, squash)

    def native(self, extra: Extra) -> dict[str, Any] | None:
        if self.std == "state_dependent" or self.free is not None:
            return None
        if self.std == "state_independent":
            log_std = extra["log_std"].squeeze(1).clamp(*self.log_stds)
        else:
            log_std = torch.full((self.action_dim,), math.log(float(self.std)))
        low, high = ((bound - self.centre) / self.scale for bound in (self.low, self.high))
        units = {"centre": self.centre, "unit": self.scale, "low": low, "high": high, "log_std": log_std}
        numbers = {"learns_std": bool(self.shapes), "penalty": self.bound_penalty, "log_unit": self.log_scale}
        return {"loss": "gaussian", **units, **numbers}


class AnnealedGaussian(Gaussian):
    """Explores with a standard deviation that falls evenly from std to std_end in the course of online training.

    Offline it stays std.
    """

    log_stds = (-math.inf, math.inf)

    def __init__(
        self,
        spec: Spec,
        std: Annotated[Positive, "to learn it, choose head=gaussian"] = 0.4,
        std_end: Positive = 0.2,
        bound_penalty: NotNegative = 0.0,
    ) -> None:
        # A parameter, so that whoever has the parameters acts with it; yet no gradient moves it.
        super().__init__(spec, "state_independent", bound_penalty)
        self.begin, self.end = std, std_end

    def start(self, generators: Sequence[Generator]) -> Tensor:
        return torch.full((len(generators), self.action_dim), math.log(self.begin))

    def _moments(self, outputs: Tensor, extra: Extra) -> tuple[Tensor, Tensor]:
        mean, log_std = super()._moments(outputs, extra)
        return mean, log_std.detach()

    numpy = Gaussian.numpy

    def native(self, extra: Extra) -> dict[str, Any] | None:
        fields = super().native(extra)
        return None if fields is None else fields | {"learns_std": False}

    def anneal(self, extra: Extra, progress: float) -> None:
        extra["log_std"].fill_(math.log(self.begin + (self.end - self.begin) * min(progress, 1.0)))


class TanhGaussian(Gaussian):
    """A Gaussian squashed into the action bounds by tanh (Haarnoja et al. 2018, appendix C).

    Raises UserError where an action is unbounded.
    """

    EDGE = 1 - 1e-4
    """Data lie on the bounds themselves, where the inverse of tanh is infinite: they are moved inside by this."""

    def __init__(self, spec: Spec, std: Std = "state_dependent") -> None:
        super().__init__(spec, std)
        self.need_bounds("tanh_gaussian")

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        x = torch.atanh(self.in_units(action, outputs).clamp(-self.EDGE, self.EDGE))
        return self._squashed_log_prob(outputs, extra, x)

    def draw(self, outputs: Tensor, extra: Extra, noise: Tensor) -> tuple[Tensor, Tensor]:
        # By the very x: that of an action near its bound cannot be had back.
        mean, log_std = self._moments(outputs, extra)
        x = mean + log_std.exp() * noise
        return self.to_action(x), self._squashed_log_prob(outputs, extra, x)

    def _squashed_log_prob(self, outputs: Tensor, extra: Extra, x: Tensor) -> Tensor:
        """Of the action that tanh makes of x, [K, B]."""
        # log(1 - tanh(x)^2), in the form that does not cancel.
        log_slope = 2 * (math.log(2) - x - F.softplus(-2 * x))
        return self._normal_log_prob(outputs, extra, x) - self.total(log_slope) - self.log_scale

    def about_data(self, action: Tensor) -> Iterator[str]:
        at_bounds = (self.in_units(action, self.unit).abs() > self.EDGE).float()
        if (share := float(self.total(at_bounds).mean()) / max(1, self.choices)) > MANY_AT_BOUNDS:
            yield (
                f"{share:.0%} of the numbers in the data's actions lie on their bounds, which a squashed policy never "
                "reaches and where its density has no limit: try head=gaussian"
            )

    def to_action(self, x: Tensor) -> Tensor:
        return super().to_action(torch.tanh(x))

    def numpy(self, extra: Extra, squash: bool = True) -> numpy_policy.NumpyHead:
        return super().numpy(extra, squash)


def auto_squashed(spec: Spec) -> Head:
    """Categorical for discrete actions, TanhGaussian for continuous ones, which must be bounded."""
    return Categorical(spec) if spec.discrete else TanhGaussian(spec)


def auto(spec: Spec) -> Head:
    """Categorical for discrete actions, Gaussian with state-independent std for continuous ones."""
    return Categorical(spec) if spec.discrete else Gaussian(spec)
