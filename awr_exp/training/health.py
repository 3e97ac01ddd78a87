"""One plain sentence for each thing that the settings or the metrics of a run say is wrong."""

from collections.abc import Iterator, Mapping

from awr_exp.math.temperature import judge


def at_start(value_iters: int | None) -> Iterator[tuple[str, str]]:
    """(name, sentence) of what the settings alone say."""
    if value_iters == 1:
        yield (
            "value_iters",
            "value_iters=1: the critic takes one step a batch and lags behind the policy; try agent.value_iters=5",
        )


def of_metrics(
    metrics: Mapping[str, float], beta: float | None, max_weight: float | None, standardized: bool
) -> Iterator[tuple[str, str]]:
    """(name, sentence) of what one report of a member says; the name lets each be said once. As `judge`."""
    found = judge(metrics, beta, max_weight, standardized)
    if found:
        yield found.state, f"{found.fact}; {found.advice}"
