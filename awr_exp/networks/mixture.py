"""A mixture of Gaussians as a policy head: it keeps ways of acting apart, of which one Gaussian takes the mean."""

import torch
from torch import Tensor

from awr_exp.networks.heads import HALF_LOG_TWO_PI, LOG_STD_MAX, LOG_STD_MIN, Categorical, Extra, Gaussian
from awr_exp.ranges import Count
from awr_exp.types import Metrics, Spec


class Mixture(Gaussian):
    """`components` Gaussians with means, deviations and shares by the network (Bishop 1994), in units as of Gaussian.

    The action of evaluation is the mean of the most probable component. Raises UserError for a discrete action space.
    """

    def __init__(self, spec: Spec, components: Count = 5) -> None:
        super().__init__(spec, "state_dependent")
        self.components = components
        self.outputs = components * (1 + 2 * spec.action_dim)
        self.choice = Categorical(Spec(spec.obs_dim, num_actions=components))
        self.noise = spec.action_dim + self.choice.noise

    def _components(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [K, B, C], and means and log standard deviations [K, B, C, action_dim]."""
        logits, moments = outputs.split([self.components, self.outputs - self.components], -1)
        mean, log_std = moments.unflatten(-1, (self.components, -1)).chunk(2, -1)
        return logits, mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        logits, mean, log_std = self._components(outputs)
        centre, unit = self._constants(outputs)
        x = ((action - centre) / unit).unsqueeze(-2)
        each = self._total(-0.5 * ((x - mean) * (-log_std).exp()).square() - log_std) - HALF_LOG_TWO_PI * self.choices
        return torch.logsumexp(logits.log_softmax(-1) + each, -1) - self.log_scale

    def report(self, outputs: Tensor, extra: Extra) -> Metrics:
        """The entropy of which component acts, in nats; that of the action has no closed form."""
        logits, _, _ = self._components(outputs)
        return {"component_entropy": self.choice.entropy(logits, extra).mean(-1)}

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        logits, mean, log_std = self._components(outputs)
        own, choosing = (None, None) if noise is None else noise.split([self.action_dim, self.choice.noise], -1)
        chosen = self.choice.act(logits, extra, choosing)[..., None, None].expand_as(mean[..., :1, :])
        mean, log_std = (each.gather(-2, chosen).squeeze(-2) for each in (mean, log_std))
        return self._to_action(mean if own is None else mean + log_std.exp() * own)
