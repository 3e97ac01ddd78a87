"""What agents share that turn advantages into weights by a temperature."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor

from awr_exp.agents.critic import CriticAgent
from awr_exp.math import weights
from awr_exp.math.members import about, started
from awr_exp.math.temperature import judge
from awr_exp.math.weights import Weighting
from awr_exp.ranges import AtLeastOne, PerMember, Positive
from awr_exp.types import Batch, Metrics


class WeightedAgent(CriticAgent):
    """An agent whose actor is a regression weighted with w(A).

    weighting: from A, beta and max_weight to w; beta: temperature, divides the advantage; max_weight: largest weight;
    standardize_advantages: give A mean 0 and standard deviation 1 in each batch before the weighting. options: other
    arguments of CriticAgent.
    """

    def __init__(
        self,
        *args: Any,
        weighting: Weighting,
        beta: PerMember[Annotated[Positive, "it divides the advantage"]] = 0.3,
        max_weight: PerMember[AtLeastOne] = 20.0,
        standardize_advantages: PerMember[bool] = False,
        **options: Any,
    ) -> None:
        # The policy is made accordingly.
        self.conditioned = weights.conditions(weighting)
        super().__init__(*args, **options)
        self.beta, self.max_weight = self.hyper(beta), self.hyper(max_weight)
        self.weighting = started(weighting, self.beta)
        self.beta_matters = weights.depends_on_beta(weighting, self.beta)
        self.own_unit = weights.has_own_unit(weighting, self.beta)
        self.standardize = self.hyper(standardize_advantages).bool()
        self.compares = bool(self.standardize.any()) or weights.compares(weighting, self.beta)
        if self.conditioned:
            self.noise_sizes["condition"] = 1

    def weights(self, advantage: Tensor) -> Tensor:
        """w(A), [K, N], of advantages that are standardised among themselves where that is asked for."""
        scaled = torch.where(self.standardize, weights.standardize(advantage), advantage)
        return self.weighting(scaled, self.beta, self.max_weight)

    def condition(self, batch: Batch, weight: Tensor) -> Tensor:
        told: Any = self.weighting
        return told.condition(weight, self.noise(batch, "condition").squeeze(-1))

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
