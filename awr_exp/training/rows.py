"""The rows of metrics in a run's folder: one JSON a line, {"update", "env_steps", "name", "value"}."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from awr_exp import results

METRICS = "metrics.jsonl"
ONCE = ("dataset/", "baseline/", "diagnosis/")
"""How the names of metrics begin that are measured once."""
TAIL = 2**18
"""Bytes at the end of the rows, which hold all metrics of more than a hundred reports."""


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of `<folder>/metrics.jsonl` in order, none without it. Torn and foreign lines are skipped.

    Raises:
        OSError: the file is there but cannot be read.
    """
    try:
        lines = (Path(folder) / METRICS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [row for line in lines if (row := _row(line))]


def last(folder: Path) -> list[dict[str, Any]]:
    """The rows at the end, in order, which hold the newest value of each metric; none where they cannot be read."""
    with suppress(OSError), (Path(folder) / METRICS).open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - TAIL)
        file.seek(start)
        # Where it begins within a line, that is none.
        return list(filter(None, map(_row, file.read().splitlines())))
    return []


Series = dict[int, float]
"""From where a run was to the value of a metric there, in order."""


def series(folder: Path) -> tuple[dict[str, Series], str]:
    """Each metric's numbers, and what they are counted in: environment steps where the run collects, or else updates.

    Raises OSError as `read`, and OverflowError for a whole number that no run counts to.
    """
    rows = read(folder)
    counts, unit = (
        ("env_steps", "environment steps") if any(row["env_steps"] for row in rows) else ("update", "updates")
    )
    found: dict[str, Series] = {}
    for row in rows:
        if row["value"] is not None and math.isfinite(row["value"]):
            found.setdefault(row["name"], {})[row[counts]] = float(row["value"])
    return found, unit


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match row:
        case {"update": int(), "env_steps": int(), "name": str(), "value": int() | float() | None}:
            return dict(row)
    return None


def divided(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics that are measured once, and those of curves, environment steps among them where there are any.

    Dashboards sort curves by name: those of one point, and of a constant, would come before the return.
    """
    once = {name: value for name, value in metrics.items() if name.startswith(ONCE)}
    curves = {name: value for name, value in metrics.items() if name not in once and name != "env_steps"}
    return once, curves | ({"trainer/env_steps": metrics["env_steps"]} if metrics.get("env_steps") else {})


def finite(value: float) -> float | None:
    """The value, or None where it is none that JSON has."""
    value = float(value)
    return value if math.isfinite(value) else None


def forget_after(path: Path, place: tuple[int, int]) -> None:
    """Rewrite the file at `path`, if any, without broken lines and rows later than this update and environment step."""
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return
    # Without its newline even a parsable last line may be torn: 12 of 123.
    complete = [line for line in before.splitlines(keepends=True) if line.endswith(b"\n")]
    after = b"".join(line for line in complete if (row := _row(line)) and (row["update"], row["env_steps"]) <= place)
    if after != before:
        results.atomic_write(path, after, durable=True)
