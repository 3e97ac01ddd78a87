"""A description as one file that a browser shows: text, tables, and pictures that the reader can zoom into."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from awr_exp.data.columns import falls_between
from awr_exp.data.description import Column, Description, Spread
from awr_exp.describe import text
from awr_exp.report.rendering import rendered

TEMPLATE = Path(__file__).with_name("page.html")
SHOWN = 500
"""Columns that a table shows; --json has all."""


def render(found: Description) -> str:
    """The page, with all that it needs inside."""
    made = [{"title": title, "note": note, "figure": figure} for title, note, figure in pictures(found)]
    return rendered(TEMPLATE, found=found, text=text, shown=SHOWN, pictures=made)


def pictures(found: Description) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Title, explanation and Plotly's figure of each picture that there is something to see in."""
    if found.returns.low != found.returns.high:
        note = "How many episodes have such a return."
        yield "Returns of episodes", note, _bars(found.returns, "return", "episodes")
        some = "each" if len(found.order) == found.episodes else "some, evenly spaced,"
        note = f"The return of {some} of the episodes as they lie in the data set, from the first to the last."
        dots = {"type": "scatter", "mode": "markers", "y": found.order, "marker": {"size": 4}}
        yield "Returns in their order", note, _figure([dots], "episode", "return")
    if found.length.low != found.length.high:
        yield "Lengths of episodes", "How many episodes have so many steps.", _bars(found.length, "steps", "episodes")
    if found.choices:
        bars = {"type": "bar", "x": list(map(str, found.choices)), "y": list(found.choices.values())}
        yield "Actions", "The share of the steps with each action.", _figure([bars], "action", "share", category=True)
    elif found.actions:
        note = (
            "Bars go from the lowest to the highest number of each entry, and dots with whiskers are its mean and "
            "standard deviation; lines are the bounds."
        )
        yield "Ranges of the actions", note, _ranges(found.actions[:SHOWN])
    note = "As of actions. An entry far from 0, or much wider than the others, is normalised before networks see it."
    yield "Ranges of the observations", note, _ranges(found.observations[:SHOWN])


def _bars(one: Spread, x: str, y: str) -> dict[str, Any]:
    edges, counts = one.histogram
    places = [(low + high) / 2 for low, high in pairwise(edges)]
    widths = [high - low for low, high in pairwise(edges)]
    bars = {"type": "bar", "x": places, "y": counts, "width": widths, "text": falls_between(edges)}
    return _figure([bars | {"textposition": "none", "hovertemplate": "%{text}: %{y}<extra></extra>"}], x, y)


def _ranges(columns: Sequence[Column]) -> dict[str, Any]:
    names = [one.name for one in columns]
    whole = {
        "type": "bar",
        "x": names,
        "base": [one.low for one in columns],
        "y": [one.high - one.low for one in columns],
        "opacity": 0.45,
        "hovertemplate": "%{base} to %{customdata}<extra></extra>",
        "customdata": [one.high for one in columns],
    }
    middle = {
        "type": "scatter",
        "mode": "markers",
        "x": names,
        "y": [one.mean for one in columns],
        "error_y": {"type": "data", "array": [one.std for one in columns]},
    }
    ends = [
        {"type": "scatter", "mode": "markers", "x": names, "y": [one.bounds[side] for one in columns],
         "marker": {"symbol": "line-ew-open", "size": 16}, "hovertemplate": "bound %{y}<extra></extra>"}
        for side in (0, 1)
    ]  # fmt: skip
    return _figure([whole, middle, *ends], "entry", "value", category=True)


def _figure(traces: list[dict[str, Any]], x: str, y: str, category: bool = False) -> dict[str, Any]:
    axis = {"title": {"text": x}, "automargin": True} | ({"type": "category"} if category else {})
    return {"data": traces, "layout": {"xaxis": axis, "yaxis": {"title": {"text": y}, "automargin": True}}}
