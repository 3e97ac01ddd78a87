"""Runs in folders become comparable: those of one task are judged by one metric at one budget."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.report import runs, settings, statistics
from awr_exp.report.group import Group
from awr_exp.report.runs import ESTIMATE, HELD_OUT, RETURN, SCORE, Result
from awr_exp.report.settings import GOALS, Setting, is_number
from awr_exp.report.statistics import ENOUGH, Array


@dataclass(frozen=True)
class Comparison:
    """The runs of one task, the budget at which they are compared, and the metric by which they are; found: all."""

    task: str
    metric: str
    unit: str
    budget: int
    found: Sequence[Result]

    @cached_property
    def names(self) -> dict[Setting, str]:
        """The names of all settings, in their order."""
        every = dict.fromkeys(result.setting for result in self.found)
        return settings.labels(sorted(every, key=settings.order))

    @cached_property
    def groups(self) -> list[Group]:
        """The settings that compare, in their order."""
        together: dict[Setting, list[Result]] = {setting: [] for setting in self.names}
        for result in self.found:
            # One that repeats another of the same seed shows nothing of chance.
            twin = any((one.seed, one.score) == (result.seed, result.score) for one in together[result.setting])
            if result.score is not None and not twin:
                together[result.setting].append(result)
        groups = [Group(setting, self.names[setting], mine) for setting, mine in together.items() if mine]
        best = max(groups, key=lambda group: group.iqm, default=None)
        return [group if group is best else replace(group, best=best) for group in groups]

    @cached_property
    def ranked(self) -> list[Group]:
        """The settings that compare, the best interquartile mean first."""
        return sorted(self.groups, key=lambda group: -group.iqm)

    @cached_property
    def measured(self) -> set[str]:
        """All metrics that any run has."""
        return {name for run in self.found for name in run.series}

    @property
    def judged(self) -> bool:
        """Whether there are metrics of held-out episodes."""
        return not self.measured.isdisjoint(HELD_OUT)

    @property
    def sure(self) -> bool:
        """Whether all settings have enough runs for intervals."""
        return all(group.many for group in self.groups)

    @cached_property
    def policies(self) -> list[Array]:
        """The returns of each trained policy's last evaluation."""
        found = [run.run.returns for group in self.groups for run in group.runs]
        return [np.array(returns, dtype=np.float64) for returns in found if returns]

    @cached_property
    def tuning(self) -> tuple[Array, Array, Array] | None:
        """The return to expect after 1, 2, ... evaluation episodes, and its interval; None of a single policy."""
        return statistics.tuning_budget(self.policies) if len(self.policies) > 1 else None

    @property
    def kind(self) -> str:
        """What the score is, in words."""
        known = {RETURN: "return", SCORE: "normalised score", ESTIMATE: "estimated discounted return"}
        return known.get(self.metric, self.metric)

    @cached_property
    def agreement(self) -> tuple[float, int] | None:
        """The rank correlation of estimated and measured returns, and of how many runs; None of fewer than ENOUGH."""
        series = [(run.series.get(ESTIMATE, {}), run.series.get(RETURN, {})) for run in self.found]
        ends = [
            (estimated[at], measured[at])
            for estimated, measured in series
            if (at := max(estimated, default=-1)) in measured
        ]
        if len(ends) < ENOUGH:
            return None
        correlation = statistics.spearman(*np.array(ends, dtype=np.float64).T)
        return (correlation, len(ends)) if np.isfinite(correlation) else None


def load(folders: Sequence[Path]) -> tuple[list[Comparison], list[str]]:
    """The runs in the folders and below, a comparison for each task; and why runs are left out, a line each.

    Raises UserError for a folder without runs, and where nothing was evaluated.
    """
    places: dict[Path, Path] = {}
    for folder in folders:
        found = results.folders(folder) if folder.is_dir() else []
        if not found:
            raise UserError(f"{folder} holds no results: give the folder of a run or of a sweep")
        places |= {path.resolve(): path for path in found}
    loaded, left_out = [], []
    for place in places.values():
        try:
            loaded.append(runs.read(place))
        except UserError as error:
            left_out.append(f"{place} is left out: {error}")
    told = ", ".join(map(str, folders))
    if not loaded:
        more = f" (and {len(left_out) - 1} more)" if left_out[1:] else ""
        raise UserError(f"{told} holds no results that can be read{more}: {left_out[0]}")
    by_task: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result, task in zip(loaded, settings.tasks([result.config for result in loaded]), strict=True):
        by_task[task, result.unit].append(result)
    compared = [compare(task, found) for (task, _), found in sorted(by_task.items(), key=lambda item: item[0])]
    if not any(one.groups or one.judged for one in compared):
        raise UserError(f"{told} holds no evaluation yet: train on, or with an environment (env=from_dataset)")
    return compared, left_out


def compare(task: str, found: Sequence[Result]) -> Comparison:
    """The runs of one task, by what they were to maximise, at the budget that the longest of them have finished.

    Before any has finished, at what all have reached.
    """
    objectives = {result.config.get("objective") for result in found}
    metric = str(objectives.pop()) if len(objectives) == 1 else RETURN
    measured = {name for result in found for name in result.series}
    # Without an environment an estimate is all there is.
    metric = next((name for name in (metric, RETURN, ESTIMATE) if name in measured), RETURN)
    given = [result.given for result in found]
    known = None if None in given else frozenset().union(*filter(None, given))
    varied = settings.varied([result.named for result in found], known)
    found = [replace(r, setting=settings.of(r.named, varied), budget=_budget(r, metric)) for r in found]
    done = [r.budget for r in found if r.finished and r.budget is not None]
    on_the_way = [r.budget for r in found if r.run.status != results.FAILED and r.budget is not None]
    budget = max(done) if done else min(on_the_way or [r.budget for r in found if r.budget is not None], default=0)

    def score(result: Result) -> float | None:
        if result.budget is None or result.budget < budget or (done and result.budget > budget):
            return None
        return result.last(metric) if done else result.last(metric, until=budget)

    return Comparison(task, metric, found[0].unit, budget, [replace(r, score=score(r)) for r in found])


def _budget(result: Result, metric: str) -> int | None:
    """How long a run was trained when it was last judged, or None if it never was.

    Online, whole iterations pass what was asked for by a little.
    """
    if metric not in result.series:
        return None
    online = result.unit == "environment steps"
    reached = (result.run.env_steps if online else result.run.update) if result.finished else 0
    reached = reached or max(result.series[metric])
    turn = [result.config.get(name) for name in ("schedule.samples_per_iteration", "trainer.envs")]
    over = sum(filter(is_number, turn)) if online else 1
    goal = next(result.config.get(name) for name, unit in GOALS.items() if unit == result.unit)
    return goal if goal is not None and goal <= reached < goal + over else reached
