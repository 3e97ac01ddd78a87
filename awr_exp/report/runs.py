"""What the files of one run say, as far as a report is concerned; or why nothing can be believed of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.reading import LARGEST, read_yaml
from awr_exp.report import settings
from awr_exp.report.settings import BETA, GOALS, Config, Setting
from awr_exp.training import rows
from awr_exp.training.rows import METRICS, Series

RETURN, SCORE = "eval/return_mean", "eval/normalized_score"
LARGEST_FILE, LONGEST_LINE = 2**30, 2**12
"""Bytes of metrics.jsonl, whose rows have about a hundred."""


@dataclass(frozen=True)
class Result:
    """A run as far as the report is concerned.

    config: all its values by dotted names; task: data set and environment; series: of each metric; unit: what these are
    counted in; budget: of which it had so many when it was last judged, or None; setting: the values in which the runs
    of its task differ; score: its objective then; None where that was not measured, or not at the budget of others.
    """

    run: results.PastRun
    config: Config
    task: str
    series: Mapping[str, Series]
    unit: str
    budget: int | None = None
    setting: Setting = ()
    score: float | None = None

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def finished(self) -> bool:
        """Whether it came as far as it was to, if only for a first judgement."""
        return self.run.status in (results.FINISHED, results.PRUNED)

    @property
    def beta(self) -> float | None:
        """If it is among that in which runs differ."""
        return next((float(value) for name, value in self.setting if name == BETA and is_number(value)), None)

    @property
    def others(self) -> Setting:
        """The setting without beta."""
        return tuple(pair for pair in self.setting if pair[0] != BETA)

    def last(self, name: str) -> float | None:
        """The last value of a metric that is a number."""
        values = self.series.get(name)
        return values[max(values)] if values else None

    def at(self, name: str, budget: int) -> float | None:
        """The last value of a metric until then."""
        values = {step: value for step, value in self.series.get(name, {}).items() if step <= budget}
        return values[max(values)] if values else None

    @property
    def returns(self) -> NDArray[np.float64] | None:
        """The last evaluation's returns; three stand in for them where only their mean and spread are known."""
        if self.run.returns:
            return np.array(self.run.returns, dtype=np.float64)
        mean, std = self.last(RETURN), self.last("eval/return_std") or 0.0
        # Of the same mean and standard deviation.
        return None if mean is None else mean + std * np.sqrt(1.5) * np.array([-1.0, 0.0, 1.0])


def read(folder: Path) -> Result:
    """Raises UserError if a file is broken, or holds what no run has."""
    path = folder / ".hydra" / "config.yaml"
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} cannot be read: it is not a mapping")
    config = settings.flat(content)
    agent = content.get("agent")
    # What beta is to somebody's own agent is theirs to say.
    if isinstance(agent, dict) and "beta" in agent and str(agent.get("_target_", "awr_exp.")).startswith("awr_exp."):
        _check(path, BETA, config.get(BETA), is_number(config.get(BETA)), "a positive, finite number")
    for name in GOALS:
        goal = config.get(name)
        _check(path, name, goal, goal is None or type(goal) is int, "a whole number of at least 1")
    if others := [f"{name}={value}" for name, value in results.changed(folder).items() if settings.is_setting(name)]:
        raise UserError(f"{folder} was resumed with {' '.join(others)}, so that it is of no one setting")
    series, unit = _series(folder)
    named = [
        {"updates": "updates", "env_steps": "environment steps"}[g.partition(".")[2]] for g in GOALS if g in config
    ]
    run = results.load(folder, results.overrides(folder) or {})
    return Result(run, config, "", series, named[0] if named else unit)


def _check(path: Path, name: str, value: Any, is_right: bool, wanted: str) -> None:
    if not is_right or (value is not None and value <= 0):
        text = str(value)
        raise UserError(f"{path} has {name}={text[:40]}{'…' * (len(text) > 40)}, which must be {wanted}")


def _series(folder: Path) -> tuple[dict[str, Series], str]:
    """The series of a run, by `rows.series`. Raises UserError for what no logger of ours has written."""
    path = folder / METRICS
    try:
        # Of a pipe one would wait for the other end.
        if path.exists() and not path.is_file():
            raise UserError(f"{path} cannot be read: it is no file")
        if path.exists() and path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} cannot be read: it is larger than {LARGEST_FILE} bytes")
        if path.exists() and any(len(line) > LONGEST_LINE for line in path.read_bytes().splitlines()):
            raise UserError(f"{path} cannot be read: it has a line that is longer than {LONGEST_LINE} bytes")
        series, unit = rows.series(folder)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except OverflowError:
        raise UserError(f"{path} cannot be read: it holds a number that is too large") from None
    for name, values in series.items():
        if max(map(abs, values.values())) >= results.LARGEST or max(map(abs, values)) >= LARGEST:
            raise UserError(f"{path} cannot be read: {name} has a number that is too large")
    return series, unit


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < results.LARGEST
