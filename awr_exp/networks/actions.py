"""Actions as inputs of a network, such as one of Q(s, a)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from awr_exp.types import Spec


class ActionInputs:
    """Finite bounds become -1 and 1, and a discrete action is 1 in its own place; size: numbers an action."""

    def __init__(self, spec: Spec) -> None:
        self.num_actions, self.size = spec.num_actions, spec.num_actions or spec.action_dim
        low, high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        wide = (low < high) & (high - low).isfinite()
        self.centre = torch.where(wide, (low + high) / 2, 0)
        self.unit = torch.where(wide, (high - low) / 2, 1)

    def __call__(self, action: Tensor, like: Tensor) -> Tensor:
        """[K, B, size] of the dtype of `like` from actions [K, B, action_dim], or [K, B] of int64."""
        if self.num_actions is not None:
            return F.one_hot(action, self.num_actions).to(like)
        return (action - self.centre.to(like)) / self.unit.to(like)
