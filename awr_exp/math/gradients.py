"""Gradients of K members at once."""

from collections.abc import Callable

import torch
from torch import Tensor

from awr_exp.types import LossAndMetrics, Metrics

Loss = Callable[[Tensor], LossAndMetrics]
"""From parameters [K, P] to each member's loss and by-products."""
# An alias, for the compiler cannot trace the making of a type within a function.
_Total = tuple[Tensor, LossAndMetrics]


def gradient(loss: Loss, theta: Tensor) -> tuple[Tensor, Tensor, Metrics]:
    """The gradient of loss(theta) at theta [K, P], the loss and its by-products."""

    if torch.compiler.is_compiling():
        # The form that the compiler can trace; eager, it takes twice as long as the other.
        def total(theta: Tensor) -> _Total:
            value, extra = loss(theta)
            return value.sum(), (value, extra)

        grad, (_, (value, extra)) = torch.func.grad_and_value(total, has_aux=True)(theta)
    else:
        theta = theta.detach().requires_grad_()
        with torch.enable_grad():
            value, extra = loss(theta)
            # Members share no parameters, so the sum keeps their gradients apart.
            (grad,) = torch.autograd.grad(value.sum(), theta)
    return grad, value.detach(), {name: tensor.detach() for name, tensor in extra.items()}
