"""What every agent has: an actor, normalised observations, and the weighted actor step."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from awr_exp.agents.members import Members
from awr_exp.errors import UserError
from awr_exp.math import losses
from awr_exp.math.gradients import Loss, gradient
from awr_exp.math.members import no_limit
from awr_exp.math.normalizer import Normalizer
from awr_exp.math.optimizers import Net, Optimizer, adam, averaging_rate, half_cosine
from awr_exp.networks.augmentation import MakeAugmentation
from awr_exp.networks.augmentation import none as no_augmentation
from awr_exp.networks.mlp import MakeNetwork, of_task
from awr_exp.networks.numpy_policy import Acting
from awr_exp.networks.policy import MakeHead, Policy
from awr_exp.ranges import BelowOne, Count, PerMember, Positive, PositiveOrInf, checked
from awr_exp.types import Batch, Columns, Episodes, LossAndMetrics, Metrics, Spec


@checked("agent")
class Agent(Members):
    """K members that learn by one algorithm.

    An algorithm is four methods: `critic_update` and `actor_update` learn from a batch, `advantage` judges its actions,
    and `weights` says how much each of them counts. `update` and the schedules are orders of these four. The ones here
    are those of behaviour cloning, which has no critic and counts all actions alike.

    Every hyper-parameter is a number for all members or a list of K.
    actor_iters: steps of the actor on each batch; anneal_actor_lr: whether its learning rate falls, see `anneal_over`.
    max_grad_norm limits each network's gradient norm, a member at a time; None or inf does not. augmentation: what is
    done to the observations that it learns from. ema_decay: of an exponential moving average of the actor's parameters;
    0: there is none. The policy that is evaluated and handed out has the average, see `averaged`; learning never looks
    at it. A member whose gradient is not finite is frozen as it was; see `alive`.
    """

    whole_episodes = False
    """Whether its targets are of whole episodes, as `targets` makes them; a batch suffices otherwise."""
    conditioned = False
    """Whether its policy is told what kind of action is wanted, see `Policy`, instead of weighing them."""
    value_iters = 0
    """Steps of the critic on each batch."""
    continuous_only = False
    """Whether it has no form for discrete actions."""
    imitates, beta_matters, compares = True, False, False
    """Whether its policy is fitted to the actions of the data, whether it has a `beta` that has an effect, and whether
    it weighs the actions of a batch against each other, so that batches need more than one."""
    reads_next_action = False
    """Whether its batches have to say what was done next, see `Batch.next_action`."""
    judged_by: frozenset[str] | None = frozenset()
    """The fields of a batch that `advantage` looks at, where it does without observations; None: all of it."""

    def __init_subclass__(cls) -> None:
        for name in ("update", "normalized"):
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__name__}.{name} would be passed over by schedules that learn in other orders: give "
                    "critic_update, advantage, weights or actor_update instead"
                )
        if "advantage" in vars(cls) and "judged_by" not in vars(cls):
            cls.judged_by = None
        checked("agent")(cls)

    def __init__(
        self,
        spec: Spec,
        network: MakeNetwork,
        head: MakeHead,
        seeds: Sequence[int],
        actor_lr: PerMember[Positive] = 3e-4,
        actor_iters: Count = 1,
        anneal_actor_lr: PerMember[bool] = False,
        max_grad_norm: PerMember[PositiveOrInf | None] = None,
        normalize_observations: PerMember[bool] = True,
        ema_decay: PerMember[BelowOne] = 0.0,
        optimizer: Optimizer = adam,
        augmentation: MakeAugmentation = no_augmentation,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.check_task(spec)
        super().__init__(seeds, device, dtype)
        self.spec, self.optimizer, self.make_network = spec, optimizer, of_task(network, spec)
        # The head's bounds beside the parameters: a captured update cannot fetch them from the host.
        with self.device:
            self.policy = Policy(spec, network, head, self.conditioned)
        self.normalizer = Normalizer(self.hyper(normalize_observations), spec.obs_dim)
        self.max_grad_norm = self.hyper(no_limit(max_grad_norm))
        self.actor_lr, self.actor_iters, self.ema_decay = self.hyper(actor_lr), actor_iters, self.hyper(ema_decay)
        self.anneal_actor_lr, self.actor_steps = self.hyper(anneal_actor_lr).bool(), self.hyper(torch.inf)
        self.actor = self.net("actor", self.policy, averaged=bool(self.ema_decay.any()))
        self.noise_sizes: dict[str, int] = {"actor": self.policy.head.loss_noise}
        self.augmentation = augmentation(spec)
        if self.augmentation:
            self.noise_sizes |= {"obs": self.augmentation.noise, "next_obs": self.augmentation.noise}

    @classmethod
    def check_task(cls, spec: Spec) -> None:
        """Raises UserError where it is for other actions than the task's."""
        if cls.continuous_only and spec.discrete:
            found = f"{spec.choices}: choose another agent, such as agent=iql"
            raise UserError(f"{cls.__name__} needs continuous actions; this task has {found}")

    def __repr__(self) -> str:
        sizes = " + ".join(f"{network.theta.shape[1]:,} of the {name}" for name, network in self.networks.items())
        seeds = ", ".join(map(str, self.seeds[:5])) + (", ..." if self.members > 5 else "")
        return f"{type(self).__name__}(seeds {seeds}; parameters: {sizes}; on {self.device}; {self.spec})"

    @property
    def lags(self) -> bool:
        """Whether its critic takes too few steps on each batch to keep up with the policy."""
        return False

    @property
    def judge(self) -> Net | None:
        """The Q by which `policy.best_of` chooses among actions, or None where it has none."""
        return None

    @property
    def facts(self) -> dict[str, Any]:
        """What the metadata of its checkpoints say beside its configuration: how its policy is made, and by whom."""
        return {"conditioned": self.policy.conditioned, "kind": type(self).__name__}

    @property
    def noise_size(self) -> int:
        """Standard normal numbers that each row of a batch comes with, for whatever the agent samples."""
        return sum(self.noise_sizes.values())

    def noise(self, batch: Batch, name: str) -> Tensor:
        """The part of a batch's noise that `noise_sizes` has under this name, [K, B, its size].

        Raises ValueError where a batch has none of what the agent samples with.
        """
        if batch.noise is None:
            if self.noise_sizes[name]:
                raise ValueError(f"this agent samples: give Batch.noise, [K, B, {self.noise_size}] normal numbers")
            return batch.obs.new_empty(*batch.obs.shape[:2], 0)
        return batch.noise.split(list(self.noise_sizes.values()), -1)[list(self.noise_sizes).index(name)]

    def fit_normalizer(self, mean: Tensor, std: Tensor) -> None:
        """Normalise observations by these statistics [obs_dim] of the data from now on, for members that want it."""
        self.normalizer.fit(mean, std)

    def normalize(self, obs: Tensor) -> Tensor:
        """[K, B, obs_dim] or [B, obs_dim], in the data's units, to [K, B, obs_dim]."""
        return self.normalizer(obs)

    def averaged(self) -> Self:
        """An agent that acts with the average of the actor's parameters where there is one: the policy to evaluate."""
        agent = copy.copy(self)
        agent.actor = self.actor.averaged()
        return agent

    @torch.no_grad()
    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions [K, B, ...] for obs [K, B, obs_dim] in the data's units, as `Policy.act` has them."""
        return self.policy.act(self.actor.theta, self.normalize(obs), noise)

    def numpy_policy(self) -> Acting | None:
        """The policy as it is now in NumPy, if it has such a form."""
        return self.policy.numpy(self.actor.theta, *self.normalizer.tensors().values())

    def critic_update(self, batch: Batch) -> Metrics:
        """One step of what judges actions, for normalised observations; what there is to report, [K] each."""
        return {}

    def advantage(self, batch: Batch) -> Tensor:
        """A(s, a), [K, B], for normalised observations."""
        return torch.zeros_like(batch.reward)

    def weights(self, advantage: Tensor) -> Tensor:
        """How much actions with these advantages [K, N] count, [K, N]."""
        return torch.ones_like(advantage)

    def condition(self, batch: Batch, weight: Tensor) -> Tensor:
        """What a policy that is conditioned is told of the actions with these weights, [K, B]; see `Policy`."""
        raise NotImplementedError

    def actor_update(self, batch: Batch, weight: Tensor) -> Metrics:
        """One step of the actor on `actor_loss`, after which its average follows."""

        def loss(theta: Tensor) -> LossAndMetrics:
            return self.actor_loss(theta, batch, weight)

        actor_loss, report = self.descend(self.actor, loss, self.annealed_lr())
        if self.actor.average is not None:
            self.actor.move_average(averaging_rate(self.ema_decay, self.actor.step))
        return {"actor_loss": actor_loss, **report}

    def actor_loss(self, theta: Tensor, batch: Batch, weight: Tensor) -> LossAndMetrics:
        """L_pi = mean(w loss(a|s)), [K], for normalised observations and weights [K, B].

        Most heads' loss is - log pi(a|s) (Peng et al. 2019, eq. 14).
        """
        condition = None
        if self.conditioned:
            condition, weight = self.condition(batch, weight), torch.ones_like(weight)
        noise = self.noise(batch, "actor")
        loss, penalty, report = self.policy.loss(theta, batch.obs, batch.action, noise, condition)
        return losses.weighted(loss, weight) + penalty, report

    def targets(self, episodes: Episodes) -> Columns | None:
        """`target` and `value` of all data, [K, N], or None where a batch suffices."""
        return None

    def health(self, advantage: Tensor, weight: Tensor) -> Metrics:
        """What there is to report of advantages and weights [K, N], [K] each."""
        return {}

    def warnings(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        """(name, sentence) of what the metrics of one report say is wrong with a member."""
        yield from ()

    def normalized(self, batch: Batch) -> Batch:
        """A batch as the four methods take it."""
        seen = {"obs": batch.obs, "next_obs": batch.next_obs}
        if self.augmentation:
            seen = {name: self.augmentation(obs, self.noise(batch, name)) for name, obs in seen.items()}
        return replace(batch, **{name: self.normalize(obs) for name, obs in seen.items()})

    @torch.no_grad()
    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch and return what there is to report, [K] each. Never waits for the device."""
        batch = self.normalized(batch)
        critic_metrics: Metrics = {}
        for _ in range(self.value_iters):
            critic_metrics = self.critic_update(batch)
        advantage = self.advantage(batch)
        weight = self.weights(advantage)
        for _ in range(self.actor_iters):
            actor_metrics = self.actor_update(batch, weight)
        return critic_metrics | self.health(advantage, weight) | actor_metrics

    def descend(self, network: Net, loss: Loss, lr: Tensor) -> LossAndMetrics:
        """One gradient step with learning rate lr [K, 1]; the loss [K] and its by-products before it."""
        grad, value, extra = gradient(loss, network.theta)
        network.descend(grad, self.optimizer, lr, self.max_grad_norm)
        return value, extra

    def annealed_lr(self) -> Tensor:
        """The actor's learning rate as it is now, [K, 1]."""
        return self.actor_lr * half_cosine(self.actor.step, self.actor_steps)

    def anneal_over(self, updates: int) -> None:
        """Let the actor's learning rate fall to 0 by half a cosine over so many updates, for members that want it."""
        self.actor_steps = torch.where(self.anneal_actor_lr, float(updates * self.actor_iters), torch.inf)

    def anneal(self, progress: float) -> None:
        """Set what of the policy follows the course of online training, from 0 to 1."""
        for theta in (self.actor.theta, self.actor.average):
            if theta is not None:
                self.policy.anneal(theta, progress)
