"""What every agent has: an actor, normalised observations, the weighted actor step, and a state of tensors."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Self

import torch
from torch import Generator, Tensor

from awr_exp.math import losses
from awr_exp.math.members import Hyper, Limit, Switch, no_limit, per_member, rows
from awr_exp.math.observations import LIMIT, normalize
from awr_exp.math.optimizers import Optimizer, Parameters, adam, average_toward
from awr_exp.networks import acting
from awr_exp.networks.policy import MakeHead, MakeNetwork, Policy
from awr_exp.seeding import generator
from awr_exp.types import Batch, Episodes, Metrics, Spec

Loss = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From parameters [K, P] to each member's loss and a by-product, [K] each."""
AVERAGE = "actor.average"
"""Its name in a state."""
VALUE_CHUNK = {"cpu": 4_096, "cuda": 65_536}
"""Rows, over all members, that pass a network at once outside an update: on a CPU activations stay in the cache, and
below the size from which every allocation is new memory of the system's."""


class Agent:
    """K members that share an architecture and differ in seed and hyper-parameters.

    seeds: one a member, K in all. Every hyper-parameter is a number for all members or a list of K.
    max_grad_norm limits each network's gradient norm, a member at a time; None or inf does not.
    ema_decay: of an exponential moving average of the actor's parameters, from 0 (there is none) to below 1. The policy
    that is evaluated and handed out has the average, see `averaged`; learning never looks at it.
    A member whose gradient is not finite is frozen as it was; see `alive`.
    """

    whole_episodes = False
    """Whether its targets are of whole episodes, as `refresh` makes them; a batch suffices otherwise."""

    def __init__(
        self,
        spec: Spec,
        network: MakeNetwork,
        head: MakeHead,
        seeds: Sequence[int],
        actor_lr: Hyper,
        max_grad_norm: Limit,
        normalize_observations: Switch = True,
        ema_decay: Hyper = 0.0,
        optimizer: Optimizer = adam,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.spec, self.seeds, self.optimizer = spec, list(seeds), optimizer
        self.device, self.dtype = torch.device(device), dtype
        # The head's bounds beside the parameters: a captured update cannot fetch them from the host.
        with self.device:
            self.policy = Policy(spec, network, head)
        self.obs_mean = torch.zeros(self.members, spec.obs_dim, device=self.device, dtype=dtype)
        self.obs_std = torch.ones_like(self.obs_mean)
        self.obs_limit = torch.full_like(self.obs_mean[:, :1], torch.inf)
        self.normalize_observations = self.hyper(normalize_observations).bool()
        self.max_grad_norm = self.hyper(no_limit(max_grad_norm))
        self.actor_lr = self.hyper(actor_lr)
        self.actor = self.parameters("actor", self.policy.start)
        self.ema_decay = self.hyper(ema_decay)
        self.average = self.actor.theta.clone() if bool(self.ema_decay.any()) else None

    @property
    def members(self) -> int:
        return len(self.seeds)

    def hyper(self, value: Hyper) -> Tensor:
        """[K, 1] on the agent's device."""
        return per_member(value, self.members, self.obs_mean)

    def parameters(self, name: str, start: Callable[[Sequence[Generator]], Tensor]) -> Parameters:
        """Fresh parameters of a network, each member's from its seed and the network's name alone."""
        theta = start([generator(seed, "init", name) for seed in self.seeds])
        return Parameters.start(theta.to(self.device, self.dtype))

    def fit_normalizer(self, mean: Tensor, std: Tensor) -> None:
        """Normalise observations by these statistics [obs_dim] of the data from now on, for members that want it."""
        self.obs_mean.copy_(torch.where(self.normalize_observations, mean, 0))
        self.obs_std.copy_(torch.where(self.normalize_observations, std, 1))
        self.obs_limit.copy_(torch.where(self.normalize_observations, LIMIT, torch.inf))

    def normalize(self, obs: Tensor) -> Tensor:
        """[K, B, obs_dim] or [B, obs_dim], in the data's units, to [K, B, obs_dim]."""
        mean, std, limit = (each.unsqueeze(1) for each in (self.obs_mean, self.obs_std, self.obs_limit))
        return normalize(obs, mean, std, limit)

    def some(self, members: slice) -> Self:
        """An agent of the chosen members alone, in the same memory: what it learns, this one has learnt."""
        part = copy.copy(self)
        part.seeds = self.seeds[members]
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(part, name, rows(value, members))
            elif hasattr(value, "some"):
                setattr(part, name, value.some(members))
        return part

    def averaged(self) -> Self:
        """An agent that acts with the average of the actor's parameters where there is one: the policy to evaluate."""
        if self.average is None:
            return self
        agent = copy.copy(self)
        agent.actor = replace(self.actor, theta=self.average)
        return agent

    @torch.no_grad()
    def act(self, obs: Tensor, generators: Sequence[Generator] | None = None) -> Tensor:
        """Actions [K, B, ...] for obs [K, B, obs_dim]: the policy's mode, or a sample from K generators.

        Those of a Gaussian may be out of bounds, as in `awr_exp.networks.acting`.
        """
        obs = self.normalize(obs)
        if generators is None:
            return self.policy.mode(self.actor.theta, obs)
        return self.policy.sample(self.actor.theta, obs, generators)

    def player(self) -> acting.Actor | None:
        """The policy as it is now in NumPy, if it has such a form."""
        return acting.actor(self.policy, self.actor.theta, self.obs_mean, self.obs_std, self.obs_limit)

    def refresh(self, episodes: Episodes) -> Tensor | None:
        """Whole-data targets [K, N] for `Batch.target`, or None where a batch suffices."""
        return None

    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch and return what there is to report, [K] each. Never waits for the device."""
        raise NotImplementedError

    def actor_step(self, obs: Tensor, action: Tensor, weight: Tensor) -> Metrics:
        """One step on L_pi = - mean(w log pi(a|s)) for normalised obs: the actor update of every agent."""

        def loss(theta: Tensor) -> tuple[Tensor, Tensor]:
            log_prob, entropy, penalty = self.policy.log_prob(theta, obs, action)
            return losses.weighted_nll(log_prob, weight) + penalty, entropy.mean(-1)

        actor_loss, entropy = self.descend(self.actor, loss, self.actor_lr)
        if self.average is not None:
            average_toward(self.average, self.actor, self.ema_decay)
        return {"actor_loss": actor_loss, "entropy": entropy}

    def descend(self, network: Parameters, loss: Loss, lr: Tensor) -> tuple[Tensor, Tensor]:
        """One gradient step with learning rate lr [K, 1]; the loss and its by-product before it, [K] each."""
        grad, value, extra = _gradient(loss, network.theta)
        network.descend(grad, self.optimizer, lr, self.max_grad_norm)
        return value, extra

    def anneal(self, progress: float) -> None:
        """Set what of the policy follows the course of online training, from 0 to 1."""
        for theta in (self.actor.theta, self.average):
            if theta is not None:
                self.policy.anneal(theta, progress)

    @property
    def networks(self) -> dict[str, Parameters]:
        """All trained parameters by name."""
        return {"actor": self.actor}

    @property
    def alive(self) -> Tensor:
        """[K] bool: False for a member frozen by a gradient that was not finite."""
        return torch.cat([network.alive for network in self.networks.values()], 1).bool().all(1)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that training changes, as tensors whose first axis is the member: a row is a single run."""
        state = {"normalizer.mean": self.obs_mean, "normalizer.std": self.obs_std, "normalizer.limit": self.obs_limit}
        for name, network in self.networks.items():
            state |= {f"{name}.{field.name}": getattr(network, field.name) for field in fields(network)}
        return state if self.average is None else state | {AVERAGE: self.average}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a `state_dict` in place; an average that it lacks begins where the actor is.

        Raises ValueError that names what is missing or of another shape.
        """
        state = {AVERAGE: state["actor.theta"], **state} if "actor.theta" in state else state
        for name, tensor in self.state_dict().items():
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise ValueError(f"'{name}' should be {tuple(tensor.shape)}, found {found}")
            tensor.copy_(state[name])


def _gradient(loss: Loss, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of loss(theta) at theta [K, P], with the loss and its by-product."""

    if torch.compiler.is_compiling():
        # The form that the compiler can trace; eager, it takes twice as long as the other.
        def total(theta: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            value, extra = loss(theta)
            return value.sum(), (value, extra)

        grad, (_, (value, extra)) = torch.func.grad_and_value(total, has_aux=True)(theta)
    else:
        theta = theta.detach().requires_grad_()
        with torch.enable_grad():
            value, extra = loss(theta)
            # Members share no parameters, so the sum keeps their gradients apart.
            (grad,) = torch.autograd.grad(value.sum(), theta)
    return grad, value.detach(), extra.detach()
