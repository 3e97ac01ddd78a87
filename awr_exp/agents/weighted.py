"""What agents share that turn advantages into weights by a temperature."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.math import weights
from awr_exp.math.members import about, started
from awr_exp.math.temperature import judge
from awr_exp.math.weights import Weighting
from awr_exp.ranges import AtLeastOne, Count, PerMember, Positive, Unit
from awr_exp.types import Metrics


class WeightedAgent(Agent):
    """An agent whose actor is a regression weighted with w(A).

    weighting: from A, beta and max_weight to w; beta: temperature, divides the advantage; max_weight: largest weight;
    gamma: discount; value_iters: steps of the critic on each batch; standardize_advantages: give A mean 0 and standard
    deviation 1 in each batch before the weighting. options: other arguments of Agent.
    """

    def __init__(
        self,
        *args: Any,
        weighting: Weighting,
        beta: PerMember[Annotated[Positive, "it divides the advantage"]] = 0.3,
        max_weight: PerMember[AtLeastOne] = 20.0,
        gamma: PerMember[Unit] = 0.99,
        critic_lr: PerMember[Positive] = 3e-4,
        value_iters: Count = 5,
        standardize_advantages: PerMember[bool] = False,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.value_iters = value_iters
        self.beta, self.max_weight = self.hyper(beta), self.hyper(max_weight)
        self.weighting = started(weighting, self.beta)
        self.beta_matters = weights.depends_on_beta(weighting, self.beta)
        self.own_unit = weights.has_own_unit(weighting, self.beta)
        self.gamma, self.critic_lr = self.hyper(gamma), self.hyper(critic_lr)
        self.standardize = self.hyper(standardize_advantages).bool()

    def weights(self, advantage: Tensor) -> Tensor:
        """w(A), [K, N], of advantages that are standardised among themselves where that is asked for."""
        scaled = torch.where(self.standardize, weights.standardize(advantage), advantage)
        return self.weighting(scaled, self.beta, self.max_weight)

    def health(self, advantage: Tensor, weight: Tensor) -> Metrics:
        return {
            "mean_advantage": advantage.mean(-1),
            "std_advantage": advantage.std(-1, correction=0),
            **weights.health(weight, self.max_weight),
            **about(self.weighting).report(),
        }

    def warnings(self, member: int, metrics: Mapping[str, float]) -> Iterator[tuple[str, str]]:
        yield from about(self.weighting).warnings(member, metrics)
        beta = float(self.beta[member]) if self.beta_matters else None
        in_spreads = self.own_unit or bool(self.standardize[member])
        found = judge(metrics, beta, float(self.max_weight[member]), in_spreads)
        if found:
            yield found.state, f"{found.fact}; {found.advice}"
