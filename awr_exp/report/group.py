"""The runs of one setting, and what they say together."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from awr_exp.math import diagnosis
from awr_exp.math.diagnosis import Finding
from awr_exp.math.temperature import Judgement
from awr_exp.report import settings, statistics
from awr_exp.report.runs import Result
from awr_exp.report.settings import BETA, Setting, is_number
from awr_exp.report.statistics import ENOUGH, Array, Interval


@dataclass(frozen=True)
class Group:
    """The runs of one setting that compare with others; best: the group of the best setting, None where this is it."""

    setting: Setting
    name: str
    runs: Sequence[Result]
    best: "Group | None" = None

    @property
    def title(self) -> str:
        """Its name, and in full what a number stands for."""
        numbered = settings.is_numbered(self.name)
        return f"{self.name}: {settings.name(self.setting, full=True)}" if numbered else self.name

    @cached_property
    def scores(self) -> Array:
        return np.array([run.score for run in self.runs], dtype=np.float64)

    @cached_property
    def iqm(self) -> float:
        return float(statistics.iqm(self.scores))

    @property
    def many(self) -> bool:
        """Whether these are enough runs for intervals."""
        return len(self.runs) >= ENOUGH

    @cached_property
    def interval(self) -> Interval | None:
        """The interval of the interquartile mean."""
        return statistics.bootstrap(self.scores) if self.many else None

    @property
    def ahead(self) -> float | None:
        """The share of pairs of runs in which the best setting's is better."""
        return statistics.probability_of_improvement(self.best.scores, self.scores) if self.best else None

    @cached_property
    def ahead_interval(self) -> Interval | None:
        if self.best is None or not (self.best.many and self.many):
            return None
        return statistics.improvement_interval(self.best.scores, self.scores)

    @property
    def beta(self) -> float | None:
        """Its beta, where that is among what runs differ in."""
        value = dict(self.setting).get(BETA)
        return float(value) if is_number(value) else None

    @property
    def others(self) -> Setting:
        """The setting without beta."""
        return tuple(pair for pair in self.setting if pair[0] != BETA)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The last of each metric, means over the runs; of training, what was measured when the weights last were."""
        values: dict[str, list[float]] = defaultdict(list)
        for run in self.runs:
            end = max(run.series.get("train/ess", [-1]))
            for name, series in run.series.items():
                trained = name.startswith("train/") and end >= 0
                if not trained or end in series:
                    values[name].append(series[end if trained else max(series)])
        return {name: sum(found) / len(found) for name, found in values.items()}

    @cached_property
    def judgement(self) -> Judgement | None:
        """What is wrong with the weights at the end; None where nothing is, or where there are none."""
        return diagnosis.judgement(self.metrics, self.runs[0].config)

    @cached_property
    def findings(self) -> list[Finding]:
        """All that can be judged of why it learns, in the order of causes."""
        return diagnosis.diagnose(self.metrics, self.runs[0].config)

    @property
    def health(self) -> str:
        """The judgement in a word or two, or nothing where there are no weights."""
        weighted = "train/ess" in self.metrics and is_number(self.runs[0].config.get(BETA))
        return self.judgement.state if self.judgement else "healthy" if weighted else ""
