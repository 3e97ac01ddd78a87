"""Policy heads: what a network's outputs and a few extra parameters mean as a distribution over actions.

A head is a pure description. `Head(spec)` says how many outputs it needs and which extra parameters it has;
its methods take the outputs [K, B, outputs] and the extra parameters {name: [K, *shape]}.
"""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from awr_exp.errors import UserError
from awr_exp.networks.mlp import Shapes, size
from awr_exp.ranges import NotNegative, Positive, Std, checked
from awr_exp.types import Metrics, Spec

Extra = dict[str, Tensor]
LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Head:
    """A distribution over actions, of which a class of one's own defines at least `outputs`, `noise`, `loss` and `act`.

    outputs: numbers that it takes of the network; shapes: of its extra parameters; noise: standard normal numbers that
    an action is drawn with; loss_noise: those that its loss takes, of a row.
    """

    outputs: int
    noise: int
    shapes: Shapes = {}  # noqa: RUF012
    loss_noise = 0

    def __init_subclass__(cls) -> None:
        checked("head")(cls)

    def start(self, generators: Sequence[Generator]) -> Tensor:
        """Initial extra parameters [K, P] on the CPU, each member's from its own generator."""
        return torch.zeros(len(generators), size(self.shapes))

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        """How badly the actions are imitated, [K, B], such as -log pi(a|s); noise [K, B, loss_noise]."""
        raise NotImplementedError

    def report(self, outputs: Tensor, extra: Extra) -> Metrics:
        """What there is to report of the distribution, [K] each."""
        return {}

    def penalty(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K], what is added to the actor's loss to keep the policy in shape."""
        return outputs.new_zeros(outputs.shape[0])

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        """An action [K, B, action_dim], maybe out of bounds, or [K, B] of int64, by noise [K, B, noise].

        None: the action of evaluation, such as the mode.
        """
        raise NotImplementedError

    def anneal(self, extra: Extra, progress: float) -> None:
        """Set in place what follows the course of online training, from 0 to 1, rather than a gradient."""


class Likelihood(Head):
    """A head whose density is known: it is imitated by maximum likelihood, and reports its entropy."""

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        """[K, B], in the units of the action."""
        raise NotImplementedError

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K, B] nats."""
        raise NotImplementedError

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        return -self.log_prob(outputs, extra, action)

    def report(self, outputs: Tensor, extra: Extra) -> Metrics:
        return {"entropy": self.entropy(outputs, extra).mean(-1)}


class Gaussian(Likelihood):
    """Independent normal for each entry of the action, in units in which finite bounds are -1 and 1.

    An entry whose bounds are equal is what they are: it is no part of the distribution, and nothing is learnt of it.
    std: 'state_independent' (one learnt number an entry), 'state_dependent' (an output of the network), or a
    positive number that stays fixed; bound_penalty: half of this times the squared distance of the mean from the
    bounds is added to the loss. Raises UserError for a discrete action space.
    """

    def __init__(self, spec: Spec, std: Std = "state_independent", bound_penalty: NotNegative = 0.0) -> None:
        if spec.discrete:
            raise UserError(
                f"head={type(self).__name__} needs continuous actions; this task has {spec.num_actions} "
                "discrete ones: use head=auto or head=categorical"
            )
        self.std, self.bound_penalty = std, bound_penalty
        self.action_dim = self.noise = spec.action_dim
        self.outputs = spec.action_dim * (2 if std == "state_dependent" else 1)
        self.shapes = {"log_std": (1, spec.action_dim)} if std == "state_independent" else {}
        low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        bounded = low.isfinite() & high.isfinite()
        self.low, self.high = low, high
        self.centre = torch.where(bounded, (low + high) / 2, 0)
        self.scale = torch.where(bounded, (high - low) / 2, 1)
        """Of a unit; 0 where there is nothing to choose."""
        self.unit = torch.where(self.scale > 0, self.scale, 1)
        self.log_scale = float(self.unit.log().sum())
        # A mask only where it is needed: it is in the midst of every update.
        self.choices = int((self.scale > 0).sum())
        self.free = (self.scale > 0).float() if self.choices < spec.action_dim else None

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
        return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.centre.to(like), self.unit.to(like)

    def _total(self, entries: Tensor) -> Tensor:
        """[..., action_dim] to [...], of those entries that there is a choice of."""
        return (entries if self.free is None else entries * self.free.to(entries)).sum(-1)

    def _normal_log_prob(self, outputs: Tensor, extra: Extra, x: Tensor) -> Tensor:
        mean, log_std = self._moments(outputs, extra)
        return self._total(-0.5 * ((x - mean) * (-log_std).exp()).square() - log_std) - HALF_LOG_TWO_PI * self.choices

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        """[K, B], in the units of the action."""
        centre, unit = self._constants(outputs)
        return self._normal_log_prob(outputs, extra, (action - centre) / unit) - self.log_scale

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K, B] nats; of the Gaussian before squashing where there is a tanh, which has no closed form."""
        mean, log_std = self._moments(outputs, extra)
        per_entry = log_std + 0.5 + HALF_LOG_TWO_PI
        return self._total(per_entry.expand_as(mean)) + self.log_scale

    def penalty(self, outputs: Tensor, extra: Extra) -> Tensor:
        if not self.bound_penalty:
            return super().penalty(outputs, extra)
        mean, _ = self._moments(outputs, extra)
        centre, unit = self._constants(outputs)
        low, high = ((bound.to(outputs) - centre) / unit for bound in (self.low, self.high))
        outside = mean - mean.clamp(low, high)
        return 0.5 * self.bound_penalty * self._total(outside.square()).mean(-1)

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        mean, log_std = self._moments(outputs, extra)
        return self._to_action(mean if noise is None else mean + log_std.exp() * noise)

    def _to_action(self, x: Tensor) -> Tensor:
        return self.centre.to(x) + self.scale.to(x) * x


class AnnealedGaussian(Gaussian):
    """Explores with a standard deviation that falls evenly from std to std_end in the course of online training.

    Offline it stays std.
    """

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
        if not all(map(math.isfinite, (*spec.action_low, *spec.action_high))):
            raise UserError(
                "head=tanh_gaussian needs finite action bounds on both sides; use head=gaussian for other actions"
            )

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        centre, unit = self._constants(outputs)
        x = torch.atanh(((action - centre) / unit).clamp(-self.EDGE, self.EDGE))
        # log(1 - tanh(x)^2), in the form that does not cancel.
        log_slope = 2 * (math.log(2) - x - F.softplus(-2 * x))
        return self._normal_log_prob(outputs, extra, x) - self._total(log_slope) - self.log_scale

    def _to_action(self, x: Tensor) -> Tensor:
        return super()._to_action(torch.tanh(x))


class Categorical(Likelihood):
    """One of `num_actions` discrete actions; half of logit_penalty times the squared logits is added to the loss.

    Raises UserError for a continuous action space.
    """

    def __init__(self, spec: Spec, logit_penalty: NotNegative = 0.0) -> None:
        if spec.num_actions is None:
            raise UserError(
                f"head=categorical needs discrete actions; this task has {spec.action_dim} continuous ones: "
                "use head=auto or head=gaussian"
            )
        self.outputs, self.logit_penalty = spec.num_actions, logit_penalty
        self.noise = 2 * spec.num_actions

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        return outputs.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K, B] nats."""
        log_prob = outputs.log_softmax(-1)
        return -(log_prob.exp() * log_prob).sum(-1)

    def penalty(self, outputs: Tensor, extra: Extra) -> Tensor:
        return 0.5 * self.logit_penalty * outputs.square().sum(-1).mean(-1)

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        if noise is None:
            return outputs.argmax(-1)
        # An exponential race, won by action a with probability softmax(outputs)_a: half the sum of two squared normal
        # numbers is an exponential one.
        times = noise.square().unflatten(-1, (2, -1)).sum(-2)
        return (outputs - times.log()).argmax(-1)


def auto(spec: Spec) -> Head:
    """Categorical for discrete actions, Gaussian with state-independent std for continuous ones."""
    return Categorical(spec) if spec.discrete else Gaussian(spec)
