"""Weightings make weights w [K, B] of advantages [K, B], and metrics tell good weights from bad.

beta [K, 1] divides the advantage: small is greedy, large is cloning. max_weight [K, 1] is the largest weight;
only `exp_clip` needs it. A weighting is any function of this signature; one that learns something of each member is
also a `awr_exp.math.members.Stateful`, such as those of `awr_exp.math.running` and `awr_exp.math.adaptive`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from awr_exp.math.members import started

Weighting = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From advantages [K, B], beta and max_weight [K, 1] to weights [K, B]."""

PRACTICALLY_ZERO = 1e-3
"""A row with less than this share of the mean weight no longer counts."""


def exp_clip(advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
    """min(exp(A / beta), max_weight) (Peng et al. 2019, eq. 13 and section 5).

    The exponent is clipped rather than the weight: nothing overflows, so no inf has to be rescued later.
    """
    return torch.minimum(advantage / beta, max_weight.log()).exp()


def normalized(advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
    """Softmax over the batch, times B so that the mean is 1 (Nair et al. 2020, eq. 13). Bounded by B itself."""
    return torch.softmax(advantage / beta, -1) * advantage.shape[-1]


def indicator(advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
    """1 where A > 0, else 0 (Wang et al. 2020, eq. 3)."""
    return (advantage > 0).to(advantage.dtype)


def constant(advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
    """1 everywhere: behaviour cloning."""
    return torch.ones_like(advantage)


def conditions(weighting: Weighting) -> bool:
    """Whether a weighting tells the policy what kind of action it sees instead of weighing it, see `conditioned`."""
    return bool(getattr(weighting, "conditions", False))


def depends_on_beta(weighting: Weighting, like: Tensor) -> bool:
    """Whether beta does anything to the weights, tried on some advantages for the members of `like` [K, ...]."""
    try:
        return not torch.equal(_tried(weighting, like), _tried(weighting, like, beta=2))
    except Exception:
        # One's own, for other batches than this.
        return True


def has_own_unit(weighting: Weighting, like: Tensor) -> bool:
    """Whether beta is in units that the weighting takes from the advantages, tried as in `depends_on_beta`."""
    try:
        return torch.allclose(_tried(weighting, like), _tried(weighting, like, scale=4))
    except Exception:
        return False


def compares(weighting: Weighting, like: Tensor) -> bool:
    """Whether weights compare the actions of a batch, so that an action by itself has the same one whatever A is."""
    try:
        alone, one = started(weighting, like[:, :1]), torch.ones_like(like[:, :1])
        same = torch.equal(alone(-3 * one, one, 20 * one), alone(3 * one, one, 20 * one))
        tried = _tried(weighting, like)
        return same and not torch.equal(tried, tried[:, :1].expand_as(tried))
    except Exception:
        return False


def _tried(weighting: Weighting, like: Tensor, scale: float = 1, beta: float = 1) -> Tensor:
    """The weights of some advantages at the start."""
    advantage, one = torch.linspace(-3, 3, 64).to(like).expand(len(like), -1), torch.ones_like(like[:, :1])
    return started(weighting, one)(scale * advantage, beta * one, 20 * one)


def standardize(advantage: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the batch, a member at a time (the authors' code, over the buffer)."""
    centred = advantage - advantage.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True).sqrt() + 1e-5)


def effective_sample_size(weight: Tensor) -> Tensor:
    """[K] in (0, 1]: share of the batch that still counts, (sum w)^2 / (B sum w^2) (Kong 1992). 0 if all w are 0."""
    return weight.mean(-1).square() / weight.square().mean(-1).clamp(min=torch.finfo(weight.dtype).tiny)


def kl_behavior(weight: Tensor) -> Tensor:
    """[K] nats: KL of the reweighted actions from the behaviour's, mean of (w / mean w) log(w / mean w).

    The quantity that the constraint behind AWR bounds (Peng et al. 2019, eq. 5), estimated on the batch.
    """
    share = weight / weight.mean(-1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    return torch.special.xlogy(share, share).mean(-1)


def health(weight: Tensor, max_weight: Tensor) -> dict[str, Tensor]:
    """What every run reports of its weights, [K] each: they tell a bad beta from a bad critic.

    clipped, zero_weight: shares of the batch at the limit, and practically zero beside the mean.
    """
    # The tolerance covers the rounding of exp(log(max_weight)).
    at_limit = weight >= max_weight * (1 - 1e-5)
    near_zero = weight <= PRACTICALLY_ZERO * weight.mean(-1, keepdim=True)
    return {
        "mean_weight": weight.mean(-1),
        "max_weight": weight.amax(-1),
        "ess": effective_sample_size(weight),
        "clipped": at_limit.to(weight.dtype).mean(-1),
        "zero_weight": near_zero.to(weight.dtype).mean(-1),
        "kl_behavior": kl_behavior(weight),
    }
