"""What a picture consists of, whoever draws it: numbers in the units of their axes, and words as they are."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["runs", "means", "curve", "thin", "steps", "join"]
"""Single runs; means, with intervals where they have some; a mean over training, with its band; one run's curve;
shares, each up to the next place; what joins means along an axis."""
COLOURS = 6
"""Colours that can be told apart by everybody: what is drawn beyond these stays in the background."""
Values = Sequence[float | None]


@dataclass(frozen=True)
class Trace:
    """Numbers that are drawn alike.

    label: for the legend, if any; colour: a number below COLOURS, or None for the background; low, high: the edges of
    intervals at each place, None where there is none; about: what there is to say of each place.
    """

    kind: Kind
    x: Values
    y: Values
    colour: int | None = None
    label: str = ""
    low: Values = ()
    high: Values = ()
    about: Sequence[str] = ()


@dataclass(frozen=True)
class Level:
    """A line across at a value, dashed or dotted; shown: whether it is near enough, else the legend alone has it."""

    label: str
    value: float
    dash: Literal["dash", "dot"] = "dash"
    shown: bool = True


@dataclass(frozen=True)
class Axis:
    """limits: what it shows, in the units of the numbers; ticks: names of places, where these are not just numbers."""

    title: str = ""
    limits: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    ticks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Panel:
    """One picture: its axes, and what is drawn."""

    x: Axis
    y: Axis
    traces: Sequence[Trace]
    levels: Sequence[Level] = ()
    title: str = ""


def framed(
    x: Axis, y: str, traces: Sequence[Trace], levels: Sequence[Level] = (), within: tuple[float, float] | None = None
) -> Panel:
    """A panel whose vertical axis, named y, shows all traces, or what is within; levels far away are only named."""
    found = [value for trace in traces for values in (trace.y, trace.low, trace.high) for value in values]
    values = [value for value in found if value is not None and math.isfinite(value)]
    low, high = within or widened(values or [level.value for level in levels] or [0.0])
    placed = []
    for level in levels:
        if low - (high - low) <= level.value <= high + (high - low):
            placed.append(level)
            values.append(level.value)
        else:
            # Far away it would flatten everything else.
            where = "below" if level.value < low else "above"
            placed.append(Level(f"{level.label} ({where})", level.value, level.dash, shown=False))
    return Panel(x, Axis(y, within or padded(*widened(values or [0.0]))), traces, placed)


def widened(values: Sequence[float]) -> tuple[float, float]:
    """The least and the largest value, apart from one another even where they are the same."""
    low, high = float(np.min(values)), float(np.max(values))
    pad = 0.0 if high - low > 1e-6 * max(abs(low), abs(high)) else 0.05 * max(abs(low), abs(high)) or 1.0
    return low - pad, high + pad


def padded(low: float, high: float) -> tuple[float, float]:
    """Limits with some room on either side."""
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def as_json(panel: Panel) -> dict[str, Any]:
    """The panel in plain values that JSON has, with as many digits as can be seen."""
    return dict(_plain(asdict(panel)))


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case float():
            return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
