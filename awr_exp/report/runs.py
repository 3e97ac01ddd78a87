"""What the files of one run say, as far as a report is concerned; or why nothing can be believed of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from awr_exp import ranges, results
from awr_exp.config import choices
from awr_exp.errors import UserError
from awr_exp.math import diagnosis
from awr_exp.ranges import Count, Range
from awr_exp.reading import LARGEST, read_yaml
from awr_exp.report import settings
from awr_exp.report.settings import BETA, GOALS, Config, Setting
from awr_exp.training import rows
from awr_exp.training.rows import METRICS, Series

RETURN, RECENT = "eval/return_mean", "eval/return_recent"
SCORE, ESTIMATE = "eval/normalized_score", "fqe/return_mean"
HELD_OUT = {
    "heldout/nll": "held-out NLL",
    "heldout/weighted_nll": "held-out weighted NLL",
    "heldout/loss": "held-out loss",
    "heldout/weighted_loss": "held-out weighted loss",
    "heldout/value_error": "held-out value error",
}
"""The metrics of episodes that nothing is trained on, and what they are called."""
LARGEST_FILE, LONGEST_LINE = 2**30, 2**12
"""Bytes of metrics.jsonl, whose rows have about a hundred."""
Beta = Annotated[float, Range(lambda v: settings.is_number(v) and v > 0, "a positive, finite number")]


@dataclass(frozen=True)
class Result:
    """A run as far as the report is concerned.

    config: all its values by dotted names; series: of each metric; unit: what these are counted in; options: what was
    chosen of each group; given: the names of its overrides, None where they are not known. Of the comparison
    that the run is part of: setting: the values in which the runs of its task differ; budget: how many units it had
    when it was last judged, or None; score: its objective then, None where that was not measured, or not at the
    budget of others.
    """

    run: results.PastRun
    config: Config
    series: Mapping[str, Series]
    unit: str
    options: Mapping[str, str] = field(default_factory=dict)
    given: frozenset[str] | None = None
    setting: Setting = ()
    budget: int | None = None
    score: float | None = None

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def named(self) -> Config:
        """Its values with parts by what was chosen."""
        return settings.named(self.config, self.options)

    @property
    def finished(self) -> bool:
        """Whether it came as far as it was to, if only for a first judgement."""
        return self.run.status in (results.FINISHED, results.PRUNED)

    def last(self, name: str, until: float = math.inf) -> float | None:
        """The last value of a metric that is a number, up to a place in training."""
        values = {step: value for step, value in self.series.get(name, {}).items() if step <= until}
        return values[max(values)] if values else None


def read(folder: Path) -> Result:
    """Read the files of a run. Raises UserError if one is broken, or holds what no run has."""
    path, content = folder / ".hydra" / "config.yaml", results.configuration(folder)
    config = settings.flat(content)
    known: dict[str, Any] = dict.fromkeys(GOALS, Count | None)
    agent = content.get("agent")
    # What beta is to somebody's own agent is theirs to say.
    if isinstance(agent, dict) and "beta" in agent and str(agent.get("_target_", "awr_exp.")).startswith("awr_exp."):
        known[BETA] = Beta
    for name, hint in known.items():
        ranges.check(f"{path} cannot be read: {name}", config.get(name), hint)
    if others := [f"{name}={value}" for name, value in results.changed(folder).items() if settings.is_setting(name)]:
        raise UserError(f"{folder} was resumed with {' '.join(others)}, so that it is of no one setting")
    series, unit = _series(folder)
    unit = next((unit for name, unit in GOALS.items() if name in config), unit)
    given = results.overrides(folder)
    names = None if given is None else frozenset(given)
    return Result(results.load(folder), config, series, unit, choices(folder), names)


def _series(folder: Path) -> tuple[dict[str, Series], str]:
    """Read the series of a run, as `rows.series` does. Raises UserError for what no logger of ours has written."""
    path = folder / METRICS
    try:
        if path.exists():
            _check_lines(path)
        series, unit = rows.series(folder)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except OverflowError:
        raise UserError(f"{path} cannot be read: it holds a number that is too large") from None
    for name, values in series.items():
        if max(map(abs, values.values())) >= results.LARGEST or max(map(abs, values)) >= LARGEST:
            raise UserError(f"{path} cannot be read: {name} has a number that is too large")
    return series, unit


def _check_lines(path: Path) -> None:
    """Raises UserError for what is no file, or is too large to be one of rows."""
    # Of a pipe one would wait for the other end.
    if not path.is_file():
        raise UserError(f"{path} cannot be read: it is no file")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path} cannot be read: it is larger than {LARGEST_FILE} bytes")
    if any(len(line) > LONGEST_LINE for line in path.read_bytes().splitlines()):
        raise UserError(f"{path} cannot be read: it has a line that is longer than {LONGEST_LINE} bytes")


def findings(folder: Path, metrics: Mapping[str, float]) -> list[diagnosis.Finding]:
    """The diagnosis of a run by its metrics; none where nothing can be judged."""
    try:
        config = read_yaml(folder / ".hydra" / "config.yaml")
        return diagnosis.diagnose(metrics, results.leaves(config) if isinstance(config, dict) else {})
    except (UserError, ArithmeticError):  # The latter is of numbers that no run has.
        return []
