"""From folders to comparable runs: which settings they had, on which task, with which seed, and how they did."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.training import loggers

RETURN, SCORE = "eval/return_mean", "eval/normalized_score"
BETA = "agent.beta"
NOT_SETTINGS = ("seed", "resume", "trust", "objective", "device", "threads", "logger.", "sweep.", "dataset.", "env.")
"""What does not make two runs different methods: bookkeeping, and the task."""

Series = dict[int, float]
Setting = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Result:
    """A run as far as the report is concerned.

    setting: the values in which runs differ, in a fixed order; task: data set and environment; series: metric to
    {update: value}; score: the last evaluation's return, or its normalised form; None where nothing was evaluated.
    """

    run: results.Run
    setting: Setting
    task: str
    seed: Any
    series: Mapping[str, Series]
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
    varied = _varied(configs)
    loaded = [
        Result(
            run,
            tuple((name, _plain(config[name])) for name in varied if name in config),
            _task(config),
            config.get("seed"),
            _series(run.folder),
        )
        for run, config in zip(runs.values(), configs, strict=True)
    ]
    if all(result.last(RETURN) is None for result in loaded):
        places = ", ".join(map(str, folders))
        raise UserError(f"{places} holds no evaluation yet: train on, or with an environment (env=from_dataset)")
    several = len({result.task for result in loaded}) > 1
    kind = SCORE if several and all(r.last(SCORE) is not None for r in loaded if r.last(RETURN) is not None) else RETURN
    scored = [Result(r.run, r.setting, r.task, r.seed, r.series, r.last(kind)) for r in loaded]
    return scored, "normalised score" if kind == SCORE else "return"


def groups(found: Sequence[Result]) -> dict[Setting, list[Result]]:
    """Runs of one setting together, evaluated ones only, in order of their settings."""
    together: dict[Setting, list[Result]] = defaultdict(list)
    for result in found:
        if result.score is not None:
            together[result.setting].append(result)
    return dict(sorted(together.items(), key=lambda item: [_order(value) for _, value in item[0]]))


def scores(runs: Sequence[Result], tasks: Sequence[str]) -> list[NDArray[np.float64]]:
    """One array of scores a task, tasks without any left out."""
    by_task = [np.array([r.score for r in runs if r.task == task], dtype=np.float64) for task in tasks]
    return [values for values in by_task if len(values)]


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


def _varied(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    names = {name: None for config in configs for name in config}
    # What a configuration lacks altogether goes without saying: another agent has other settings.
    varied = [name for name in names if len({str(config[name]) for config in configs if name in config}) > 1]
    return [name for name in varied if not f"{name}.".startswith(tuple(f"{n.rstrip('.')}." for n in NOT_SETTINGS))]


def _task(config: Mapping[str, Any]) -> str:
    data = config.get("dataset.id") or _plain(config.get("dataset", "?"))
    env = config.get("env.id")
    return f"{data} in {env}" if env else str(data)


def _series(folder: Path) -> dict[str, Series]:
    series: dict[str, Series] = defaultdict(dict)
    for row in _rows(folder):
        if row["value"] is not None:
            series[row["name"]][row["update"]] = float(row["value"])
    return dict(series)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from loggers.read(folder)
    except OSError:
        return
