"""A mixture of Gaussians as a policy head: it keeps ways of acting apart, of which one Gaussian takes the mean."""

import torch
from torch import Tensor

from awr_exp.networks.categorical import Categorical
from awr_exp.networks.head import Extra
from awr_exp.networks.heads import Gaussian
from awr_exp.networks.numpy_policy import Components, NumpyHead
from awr_exp.ranges import Count
from awr_exp.types import Metrics, Spec


class Mixture(Gaussian):
    """`components` Gaussians with means, deviations and shares by the network (Bishop 1994), in units as of Gaussian.

    The action of evaluation is the mean of the most probable component. Raises UserError for a discrete action space.
    """

    # Which component acts is chosen, and that choice has no gradient.
    differentiable = False

    def __init__(self, spec: Spec, components: Count = 5) -> None:
        super().__init__(spec, "state_dependent")
        self.components = components
        self.outputs = components * (1 + 2 * spec.action_dim)
        self.choice = Categorical(Spec(spec.obs_dim, num_actions=components))
        self.noise = spec.action_dim + self.choice.noise

    def _components(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [K, B, C], and what each component would take as the outputs of a Gaussian, [K, B, C, outputs]."""
        logits, each = outputs.split([self.components, self.outputs - self.components], -1)
        return logits, each.unflatten(-1, (self.components, -1))

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        logits, each = self._components(outputs)
        log_probs = self._normal_log_prob(each, extra, self.in_units(action, outputs).unsqueeze(-2))
        return torch.logsumexp(logits.log_softmax(-1) + log_probs, -1) - self.log_scale

    def report(self, outputs: Tensor, extra: Extra) -> Metrics:
        """The entropy of which component acts, in nats; that of the action has no closed form."""
        return {"component_entropy": self.choice.entropy(self._components(outputs)[0], extra).mean(-1)}

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        logits, each = self._components(outputs)
        own, choosing = (None, None) if noise is None else noise.split([self.action_dim, self.choice.noise], -1)
        chosen = self.choice.act(logits, extra, choosing)[..., None, None].expand_as(each[..., :1, :])
        return super().act(each.gather(-2, chosen).squeeze(-2), extra, own)

    def numpy(self, extra: Extra, squash: bool = False) -> NumpyHead:
        return Components(self.components, self.action_dim, super().numpy(extra, squash))
