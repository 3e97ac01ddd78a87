"""The space of a search: what Optuna draws from, and what of it has been tried."""

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from awr_exp.errors import UserError
from awr_exp.guard import shown
from awr_exp.sweep.sweeper import one_line


def distribution(override: Override) -> Any:
    """What Optuna draws from for a sweep of Hydra's. Raises UserError for a kind that it has no name for."""
    found = library().distributions
    value = override.value()
    logarithmic = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            whole = isinstance(value.start, int) and isinstance(value.end, int)
            kind = found.IntDistribution if whole else found.FloatDistribution
            return kind(value.start, value.end, log=logarithmic)
        if isinstance(value, RangeSweep):
            values = list(value.range())
            kind = found.IntDistribution if all(isinstance(one, int) for one in values) else found.FloatDistribution
            return kind(values[0], values[-1], step=value.step)
        return found.CategoricalDistribution(list(override.sweep_string_iterator()))
    except (ValueError, TypeError, IndexError) as error:
        raise UserError(f"{override.input_line}: {one_line(error)}") from None


def choices(one: Any) -> list[Any] | None:
    """All values of a distribution, or None where there is no end of them."""
    if hasattr(one, "choices"):
        return list(one.choices)
    if one.step is None:
        return None
    return [_rounded(one.low + i * one.step) for i in range(int((one.high - one.low) / one.step + 1e-9) + 1)]


def point(params: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(_rounded(params.get(name)) for name in space)


def _rounded(value: Any) -> Any:
    return round(value, 12) if isinstance(value, float) else value


def edges(space: Mapping[str, Any]) -> list[list[str]]:
    """Overrides at the low and at the high end of every distribution."""

    def ends(one: Any) -> list[Any]:
        return list(one.choices) if hasattr(one, "choices") else [one.low, one.high]

    longest = max(len(ends(one)) for one in space.values())
    rows = [{name: ends(one)[min(i, len(ends(one)) - 1)] for name, one in space.items()} for i in range(longest)]
    return [[f"{name}={value}" for name, value in row.items()] for row in rows]


def check_space(study: Any, space: Mapping[str, Any]) -> None:
    """Raises UserError where earlier trials are of another space; fails the last if it was killed while asked for.

    A study may come from somebody else, and what its trials have becomes overrides.
    """
    for trial in study.get_trials(deepcopy=False):
        # What was asked for by hand comes without a distribution.
        for name, value in (trial.system_attrs.get("fixed_params", {}) | trial.params).items():
            choices = getattr(space.get(name), "choices", None)
            if name not in space or not (value in choices if choices else type(value) in (int, float)):
                raise UserError(f"the study was started with another space: {name} was {shown(value)}")
    optuna = library()
    state = optuna.trial.TrialState
    trials = study.get_trials(states=[state.RUNNING, state.PRUNED, state.COMPLETE])
    for number, trial in enumerate(trials, 1):
        begun = trial.distributions.keys()
        if number == len(trials) and trial.state == state.RUNNING and begun < space.keys():
            study.tell(trial.number, state=state.FAIL)
            return
        try:
            if begun != space.keys():
                raise ValueError(f"of {', '.join(begun)}")
            for name, one in trial.distributions.items():
                optuna.distributions.check_distribution_compatibility(one, space[name])
        except ValueError as error:
            raise UserError(f"the study was started with another space: {one_line(error)}") from None


def library() -> Any:
    """Optuna. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'awr-exp[tune]'") from None
    return optuna
