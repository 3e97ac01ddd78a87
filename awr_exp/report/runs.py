"""From folders to comparable runs: which settings they had, on which task, with which seed, and how they did."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.training import loggers
from awr_exp.training.loggers import Series

RETURN, SCORE = "eval/return_mean", "eval/normalized_score"
BETA = "agent.beta"
NOT_SETTINGS = ("seed", "resume", "trust", "objective", "device", "threads", "logger", "sweep")
"""What does not make two runs different methods: bookkeeping."""
TASK = ("dataset", "dataset.id", "dataset.download")
"""Nor does the task. How its data are used does: other settings of the data set count where one task has several."""

Setting = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Result:
    """A run as far as the report is concerned.

    setting: the values in which runs differ, in a fixed order; task: data set and environment; series: of each metric;
    unit: what these are counted in; score: the last evaluation's return, or its normalised form; None where nothing was
    evaluated.
    """

    run: results.Run
    setting: Setting
    task: str
    seed: Any
    series: Mapping[str, Series]
    unit: str
    score: float | None = None

    @property
    def beta(self) -> float | None:
        return next((float(value) for name, value in self.setting if name == BETA), None)

    @property
    def others(self) -> Setting:
        """The setting without beta."""
        return tuple(pair for pair in self.setting if pair[0] != BETA)

    def last(self, name: str) -> float | None:
        """The last value of a metric that is a number."""
        values = self.series.get(name)
        return values[max(values)] if values else None

    @property
    def returns(self) -> NDArray[np.float64] | None:
        """Of the last evaluation's episodes; where only their mean and spread are known, a stand-in of three."""
        if self.run.returns:
            return np.array(self.run.returns, dtype=np.float64)
        mean, std = self.last(RETURN), self.last("eval/return_std") or 0.0
        # Of the same mean and standard deviation.
        return None if mean is None else mean + std * np.sqrt(1.5) * np.array([-1.0, 0.0, 1.0])


def load(folders: Sequence[Path]) -> tuple[list[Result], str]:
    """The runs in the folders and below, and what their scores are: returns, or normalised ones over several tasks.

    Raises UserError for a folder without runs.
    """
    runs: dict[Path, results.Run] = {}
    for folder in folders:
        found = results.runs(folder) if folder.is_dir() else []
        if not found:
            raise UserError(f"{folder} holds no results: give the folder of a run or of a sweep")
        runs |= {run.folder.resolve(): run for run in found}
    configs = [_flat(_config(run.folder)) for run in runs.values()]
    tasks = [_task(config) for config in configs]
    varied = _varied(configs, tasks)
    loaded = [
        Result(
            run,
            tuple((name, _plain(config[name])) for name in varied if name in config),
            task,
            config.get("seed"),
            *_series(run.folder),
        )
        for run, config, task in zip(runs.values(), configs, tasks, strict=True)
    ]
    if all(result.last(RETURN) is None for result in loaded):
        places = ", ".join(map(str, folders))
        raise UserError(f"{places} holds no evaluation yet: train on, or with an environment (env=from_dataset)")
    evaluated = [result for result in loaded if result.last(RETURN) is not None]
    if len({result.task for result in evaluated}) == 1:
        return [replace(result, score=result.last(RETURN)) for result in loaded], "return"
    if all(result.last(SCORE) is not None for result in evaluated):
        return [replace(result, score=result.last(SCORE)) for result in loaded], "normalised score"
    # Without references the returns of several tasks compare only by where they lie among those of their task.
    returns: dict[str, list[float]] = defaultdict(list)
    for result in evaluated:
        returns[result.task].append(result.last(RETURN) or 0.0)
    ranges = {task: (min(values), (max(values) - min(values)) or 1.0) for task, values in returns.items()}

    def scaled(result: Result) -> float | None:
        value, (low, width) = result.last(RETURN), ranges.get(result.task, (0.0, 1.0))
        return None if value is None else (value - low) / width

    return [replace(result, score=scaled(result)) for result in loaded], "return, from 0 to 1 within each task,"


def groups(found: Sequence[Result]) -> dict[Setting, list[Result]]:
    """Runs of one setting together, evaluated ones only, in order of their settings."""
    together: dict[Setting, list[Result]] = defaultdict(list)
    for result in found:
        if result.score is not None:
            together[result.setting].append(result)
    return dict(sorted(together.items(), key=lambda item: [_order(value) for _, value in item[0]]))


def scores(runs: Sequence[Result], tasks: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """An array of scores for each task that has any."""
    by_task = {task: np.array([r.score for r in runs if r.task == task], dtype=np.float64) for task in tasks}
    return {task: values for task, values in by_task.items() if len(values)}


def name(setting: Setting) -> str:
    """A setting in words, such as "beta=0.3 network.hidden=[64, 64]"."""
    return " ".join(f"{key.removeprefix('agent.')}={_short(value)}" for key, value in setting) or "all runs"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and len(str(value)) > 7 else str(value)


def _order(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, str(value))


def _plain(value: Any) -> Any:
    return str(value).rpartition(".")[2] if isinstance(value, str) and value.startswith("awr_exp.") else value


def _config(folder: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load((folder / ".hydra" / "config.yaml").read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names to values. Lists become texts: they are compared and shown, no more."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        path = f"{prefix}{key}".removesuffix("._target_")
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[path] = str(value) if isinstance(value, list) else value
    return flat


def _varied(configs: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[str]:
    # What a configuration lacks altogether goes without saying: another agent has other settings.
    values: dict[str, set[str]] = defaultdict(set)
    within: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for config, task in zip(configs, tasks, strict=True):
        for name, value in config.items():
            values[name].add(str(value))
            within[name][task].add(str(value))

    def counts(name: str) -> bool:
        group = name.partition(".")[0]
        if group in NOT_SETTINGS or name in TASK or group == "env":
            return False
        return group != "dataset" or any(len(found) > 1 for found in within[name].values())

    return [name for name, found in values.items() if len(found) > 1 and counts(name)]


def _task(config: Mapping[str, Any]) -> str:
    data = config.get("dataset.id") or _plain(config.get("dataset", "?"))
    env = config.get("env.id")
    options = [f"{key.rpartition('.')[2]}={value}" for key, value in config.items() if key.startswith("env.kwargs.")]
    return " ".join([str(data), *(["in", str(env)] if env else []), *options])


def _series(folder: Path) -> tuple[dict[str, Series], str]:
    try:
        return loggers.series(folder)
    except OSError:
        return {}, "updates"
