"""What a policy head is: what a network's outputs and a few extra parameters mean as a distribution over actions.

A head is a pure description. `Head(spec)` says how many outputs it needs and which extra parameters it has;
its methods take the outputs [K, B, outputs] and the extra parameters {name: [K, *shape]}.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from awr_exp.errors import UserError
from awr_exp.networks.mlp import Shapes, size
from awr_exp.ranges import checked
from awr_exp.types import Metrics, Spec

Extra = dict[str, Tensor]


class Head:
    """A distribution over actions, of which a class of one's own defines at least `outputs`, `noise`, `loss` and `act`.

    outputs: numbers that it takes of the network; shapes: of its extra parameters; noise: standard normal numbers that
    an action is drawn with; loss_noise: those that its loss takes, of a row.

    A head may have further forms, of which each is None where there is none: `numpy(extra)` acts as `act` does for
    arrays, see `awr_exp.networks.numpy_policy`, and `native(extra)` is what the C++ of `awr_exp.training.native` has to
    know of it. They are not inherited, since who inherits the rest may act otherwise.
    """

    outputs: int
    noise: int
    shapes: Shapes = {}  # noqa: RUF012
    loss_noise = 0
    differentiable = True
    """Whether `act` has a gradient with respect to the outputs, along which an agent may climb Q."""
    known_density = False
    """Whether there is a `log_prob`."""

    def __init_subclass__(cls) -> None:
        for name in ("numpy", "native"):
            if name not in vars(cls):
                setattr(cls, name, None)
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

    def log_prob(self, outputs: Tensor, extra: Extra, action: Tensor) -> Tensor:
        """The logarithm of the density of actions, in their own units, [K, B], of a head that knows it."""
        raise NotImplementedError

    def draw(self, outputs: Tensor, extra: Extra, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`act` by this noise, and `log_prob` of what it does, of a head that knows it."""
        action = self.act(outputs, extra, noise)
        return action, self.log_prob(outputs, extra, action)

    def penalty(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K], what is added to the actor's loss to keep the policy in shape."""
        return outputs.new_zeros(outputs.shape[0])

    def act(self, outputs: Tensor, extra: Extra, noise: Tensor | None) -> Tensor:
        """An action [K, B, action_dim], maybe out of bounds, or [K, B] or [K, B, n] of int64, by noise [K, B, noise].

        None: the action of evaluation, such as the mode.
        """
        raise NotImplementedError

    def about_data(self, action: Tensor) -> Iterator[str]:
        """Sentences on what makes these actions of the data, [N, ...], hard to imitate for it."""
        yield from ()

    def anneal(self, extra: Extra, progress: float) -> None:
        """Set in place what follows the course of online training, from 0 to 1, rather than a gradient."""


class Likelihood(Head):
    """A head whose density is known: it is imitated by maximum likelihood, and reports its entropy."""

    known_density = True

    def entropy(self, outputs: Tensor, extra: Extra) -> Tensor:
        """[K, B] nats."""
        raise NotImplementedError

    def loss(self, outputs: Tensor, extra: Extra, action: Tensor, noise: Tensor) -> Tensor:
        return -self.log_prob(outputs, extra, action)

    def report(self, outputs: Tensor, extra: Extra) -> Metrics:
        return {"entropy": self.entropy(outputs, extra).mean(-1)}


class Continuous(Head):
    """A head of continuous actions, which works in units in which finite bounds are -1 and 1.

    An entry whose bounds are equal is what they are: nothing is learnt of it. Raises UserError for a discrete action
    space.
    """

    def __init__(self, spec: Spec) -> None:
        if spec.discrete:
            raise UserError(
                f"head={type(self).__name__} needs continuous actions; this task has {spec.choices}: "
                "use head=auto or head=categorical"
            )
        self.action_dim = spec.action_dim
        self.low, self.high = torch.tensor(spec.action_low), torch.tensor(spec.action_high)
        bounded = self.low.isfinite() & self.high.isfinite()
        self.centre = torch.where(bounded, (self.low + self.high) / 2, 0)
        self.scale = torch.where(bounded, (self.high - self.low) / 2, 1)
        """Of a unit; 0 where there is nothing to choose."""
        self.unit = torch.where(self.scale > 0, self.scale, 1)
        self.log_scale = float(self.unit.log().sum())
        # A mask only where it is needed: it is in the midst of every update.
        self.choices = int((self.scale > 0).sum())
        self.free = (self.scale > 0).float() if self.choices < spec.action_dim else None

    def in_units(self, action: Tensor, like: Tensor) -> Tensor:
        """Actions [..., action_dim] in units; like: a tensor of the device and the dtype that constants are to have."""
        return (action - self.centre.to(like)) / self.unit.to(like)

    def to_action(self, x: Tensor) -> Tensor:
        """The actions that are x [..., action_dim] in units."""
        return self.centre.to(x) + self.scale.to(x) * x

    def total(self, entries: Tensor) -> Tensor:
        """[..., action_dim] to [...], of those entries that there is a choice of."""
        return (entries if self.free is None else entries * self.free.to(entries)).sum(-1)

    def need_bounds(self, name: str) -> None:
        """Raises UserError, which calls the head by its name, where an action is unbounded."""
        if not bool((self.low.isfinite() & self.high.isfinite()).all()):
            raise UserError(
                f"head={name} needs finite action bounds on both sides; use head=gaussian for other actions"
            )
