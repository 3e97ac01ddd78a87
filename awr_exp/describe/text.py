"""A description for a terminal of 80 columns, and for machines."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from awr_exp.data.columns import falls_between
from awr_exp.data.description import Column, Description, Histogram
from awr_exp.errors import printable

WIDTH = 80
SHOWN = 16
"""Columns that a table shows; the page and --json have all."""
HEADING = "What to look at, and what it will mean"
BAR = 40
"""Characters of the longest bar."""


def as_json(found: Description) -> dict[str, Any]:
    """Everything by name; what is no finite number is null."""
    content: dict[str, Any] = _plain(asdict(found) | {"truncated": found.truncated})
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def lines(found: Description) -> Iterator[str]:
    """The lines of a description, none longer than WIDTH."""
    for part in (_title(found), _whole(found), _returns(found), _columns(found), _remarks(found)):
        for line in part:
            yield printable(line)


def _title(found: Description) -> Iterator[str]:
    yield from textwrap.wrap(found.id, WIDTH)
    if found.environment:
        yield from _indented(f"recorded in {found.environment}")
    yield from _indented(found.task)
    yield ""


def _whole(found: Description) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{found.episodes:,} episodes with {found.steps:,} steps. {share(found.terminated)} of the episodes terminate, "
        f"and {share(found.truncated)} are truncated. {copies(found)}",
        WIDTH,
    )
    yield ""
    yield _row("", ("mean", "std", "min", "median", "max"))
    for name, one in (("steps of an episode", found.length), ("return of an episode", found.returns)):
        yield _row(name, tuple(map(number, (one.mean, one.std, one.low, one.median, one.high))))
    reward = found.reward
    yield _row("reward of a step", (*map(number, (reward.mean, reward.std, reward.low)), "", number(reward.high)))
    yield ""
    yield from textwrap.wrap(spread_of_quality(found), WIDTH)
    yield ""


def copies(found: Description) -> str:
    """Whether there is anything twice, in a sentence."""
    if not found.duplicate_episodes + found.duplicate_steps:
        return "No step is there twice."
    return (
        f"{found.duplicate_episodes:,} episodes are copies of others, and {found.duplicate_steps:,} steps of the rest "
        "are the same as another one."
    )


def spread_of_quality(found: Description) -> str:
    """How good the data are and what there is to choose from, in sentences."""
    said = []
    if found.references and found.scores:
        low, high = found.references
        said.append(
            f"The mean return is a score of {found.scores[0]:.3f} and the best one of {found.scores[1]:.3f}, where 0 "
            f"is random ({low:.5g}) and 1 an expert ({high:.5g})."
        )
    lead = found.coverage.get("coverage")
    if lead is not None:
        unit = "of that way" if found.references else "of the mean size of a return"
        said.append(
            f"The best tenth of the episodes leads the mean by {lead:.2f} {unit}, beyond what their starts explain: "
            "that is what weights have to choose from."
        )
    if found.explained:
        said.append(
            f"Actions explain {share(max(0, found.explained['own']))} of how observations change in a step, beside "
            "what the observations say by themselves."
        )
    return " ".join(said)


def _returns(found: Description) -> Iterator[str]:
    for name, one in (("returns", found.returns), ("lengths", found.length)):
        if one.low != one.high:
            yield f"Episodes by their {name}"
            yield from bars(one.histogram)
            yield ""


def bars(histogram: Histogram) -> Iterator[str]:
    """A histogram, a line a bin."""
    edges, counts = histogram
    names, most = falls_between(edges), max(counts)
    wide = max(map(len, names))
    for name, count in zip(names, counts, strict=True):
        bar = "█" * math.ceil(BAR * count / most)
        yield f"  {name:>{wide}}  {bar} {count:,}"


def _columns(found: Description) -> Iterator[str]:
    yield _row("observations", ("mean", "std", "min", "max"))
    yield from _each(found.observations, lambda one: ())
    yield ""
    if found.choices:
        yield _row("actions", ("share",))
        for action, part in list(found.choices.items())[:SHOWN]:
            yield _row(f"  {action}", (share(part),))
        yield from _more(len(found.choices))
    else:
        yield _row("actions", ("mean", "std", "min", "max", "on bounds"))
        yield from _each(found.actions, lambda one: (bounds(one),))
    yield ""


def _each(columns: Sequence[Column], more: Any) -> Iterator[str]:
    # What is constant is named among the remarks.
    for one in columns[:SHOWN]:
        yield _row(f"  {one.name}", (*map(number, (one.mean, one.std, one.low, one.high)), *more(one)))
    yield from _more(len(columns))


def _more(count: int) -> Iterator[str]:
    if count > SHOWN:
        yield f"  ... and {count - SHOWN:,} more, which the page and --json have"


def bounds(one: Column) -> str:
    """The share of a column that lies on its bounds, in a word."""
    return "none" if one.bounds == (None, None) else share(one.on_low + one.on_high)


def _remarks(found: Description) -> Iterator[str]:
    if not found.remarks:
        yield "Nothing looks wrong."
        return
    yield HEADING
    for place, remark in enumerate(found.remarks, 1):
        yield from textwrap.wrap(
            sentence(remark), WIDTH, initial_indent=f"{place:>3}. ", subsequent_indent="     ", break_on_hyphens=False
        )


def sentence(text: str) -> str:
    """A remark as a sentence that stands by itself."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def number(value: float) -> str:
    """A number in few characters."""
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e7 else f"{value:.4g}"


def share(value: float) -> str:
    """A share as a percentage that says 0 and 100 only where it is that."""
    if 0 < value < 0.01 or 0.99 < value < 1:
        return "<1%" if value < 0.5 else ">99%"
    return f"{value:.0%}"


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _row(name: str, cells: Sequence[str]) -> str:
    wide = WIDTH - 11 * 5
    # Entries of one thing differ in their end.
    short = name if len(name) < wide else f"  ...{name[6 - wide :]}"
    return f"{short:<{wide}}{''.join(f'{cell:>11}' for cell in cells)}".rstrip()
