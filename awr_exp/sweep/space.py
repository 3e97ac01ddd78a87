"""The space of a search: what Optuna draws from."""

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from awr_exp.errors import UserError, first_line


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
        raise UserError(f"{override.input_line}: {first_line(error)}") from None


def choices(one: Any) -> list[Any] | None:
    """All values of a distribution, or None where there is no end of them."""
    if hasattr(one, "choices"):
        return list(one.choices)
    if one.step is None:
        return None
    return [_rounded(one.low + i * one.step) for i in range(int((one.high - one.low) / one.step + 1e-9) + 1)]


def point(params: Mapping[str, Any], space: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of parameters, in the order of the space, as they are compared."""
    return tuple(_rounded(params.get(name)) for name in space)


def _rounded(value: Any) -> Any:
    return round(value, 12) if isinstance(value, float) else value


def edges(space: Mapping[str, Any]) -> list[list[str]]:
    """Overrides at the low and at the high end of every distribution."""
    ends = {name: list(getattr(one, "choices", ())) or [one.low, one.high] for name, one in space.items()}
    longest = max(map(len, ends.values()))
    return [[f"{name}={own[min(i, len(own) - 1)]}" for name, own in ends.items()] for i in range(longest)]


def library() -> Any:
    """Optuna. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError("hydra/sweeper=optuna needs Optuna: pip install 'awr-exp[tune]'") from None
    return optuna
