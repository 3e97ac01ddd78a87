"""Runs in folders become comparable: those of one task are judged by one metric at one budget."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.math.temperature import Judgement, judge
from awr_exp.report import runs, settings
from awr_exp.report.runs import RETURN, SCORE, Result, is_number
from awr_exp.report.settings import BETA, GOALS, Setting

Groups = Mapping[Setting, Sequence[Result]]


@dataclass(frozen=True)
class Comparison:
    """The runs of one task: which compare, at which budget, and by which metric.

    found: all of them; groups: those that compare, by setting; names: of all settings.
    """

    task: str
    metric: str
    unit: str
    budget: int
    found: Sequence[Result]

    @cached_property
    def groups(self) -> dict[Setting, list[Result]]:
        together: dict[Setting, list[Result]] = defaultdict(list)
        for result in self.found:
            # One that repeats another of the same seed shows nothing of chance.
            twin = any((one.seed, one.score) == (result.seed, result.score) for one in together[result.setting])
            if result.score is not None and not twin:
                together[result.setting].append(result)
        together = {setting: mine for setting, mine in together.items() if mine}
        return dict(sorted(together.items(), key=lambda item: settings.order(item[0])))

    @cached_property
    def names(self) -> dict[Setting, str]:
        every = dict.fromkeys(result.setting for result in self.found)
        return settings.labels(sorted(every, key=settings.order))

    @property
    def kind(self) -> str:
        """What the score is, in words."""
        return {RETURN: "return", SCORE: "normalised score"}.get(self.metric, self.metric)

    def judgement(self, setting: Setting) -> tuple[Judgement | None, bool]:
        """The judgement of the weights at the end of a setting's runs, by their mean metrics; whether there are any."""
        mine = self.groups[setting]
        ends = [max(run.series["train/ess"]) if "train/ess" in run.series else -1 for run in mine]
        values: dict[str, list[float]] = defaultdict(list)
        for run, end in zip(mine, ends, strict=True):
            for name, series in run.series.items():
                if name.startswith("train/") and end in series:
                    values[name.removeprefix("train/")].append(series[end])
        means = {name: sum(found) / len(found) for name, found in values.items()}
        config = mine[0].config
        beta, limit = config.get(BETA), config.get("agent.max_weight")
        if "ess" not in means or not is_number(beta):
            return None, False
        # Of the weightings that are known not to heed it; whoever writes an own one is believed to.
        heeds = config.get("weighting") not in ("indicator", "constant")
        standardized = config.get("agent.standardize_advantages") is True
        limit = float(limit) if is_number(limit) else None  # type: ignore[arg-type]
        return judge(means, float(beta) if heeds else None, limit, standardized), True  # type: ignore[arg-type]


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
    if not loaded:
        more = f" (and {len(left_out) - 1} more)" if left_out[1:] else ""
        raise UserError(f"{', '.join(map(str, folders))} holds no results that can be read{more}: {left_out[0]}")
    by_task: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result, task in zip(loaded, settings.tasks([result.config for result in loaded]), strict=True):
        by_task[task, result.unit].append(replace(result, task=task))
    compared = [compare(by_task[key]) for key in sorted(by_task)]
    if not any(one.groups for one in compared):
        places_text = ", ".join(map(str, folders))
        raise UserError(f"{places_text} holds no evaluation yet: train on, or with an environment (env=from_dataset)")
    return compared, left_out


def compare(found: Sequence[Result]) -> Comparison:
    """The runs of one task, by what they were to maximise, at the budget that the longest of them have finished.

    Before any has finished, at what all have reached.
    """
    objectives = {result.config.get("objective") for result in found}
    metric = str(objectives.pop()) if len(objectives) == 1 else RETURN
    if not any(metric in result.series for result in found):
        metric = RETURN
    varied = settings.varied([result.config for result in found])
    found = [
        replace(result, setting=settings.of(result.config, varied), budget=_budget(result, metric)) for result in found
    ]
    done = [result.budget for result in found if result.finished and result.budget is not None]
    on_the_way = [r.budget for r in found if r.run.status != results.FAILED and r.budget is not None]
    budget = max(done) if done else min(on_the_way or [r.budget for r in found if r.budget is not None], default=0)

    def score(result: Result) -> float | None:
        if result.budget is None or result.budget < budget or (done and result.budget > budget):
            return None
        return result.last(metric) if done else result.at(metric, budget)

    found = [replace(result, score=score(result)) for result in found]
    return Comparison(found[0].task, metric, found[0].unit, budget, found)


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
    over = sum(value for value in turn if is_number(value)) if online else 1  # type: ignore[misc]
    goal = result.config.get(GOALS[online])
    return goal if goal is not None and goal <= reached < goal + over else reached
