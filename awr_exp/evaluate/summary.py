"""The numbers of an evaluation, and a table of them."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from awr_exp import results, shell
from awr_exp.errors import UserError
from awr_exp.evaluate.entries import Entry
from awr_exp.evaluate.play import Played
from awr_exp.report.statistics import ENOUGH, bootstrap

Numbers = dict[str, Any]
"""What is known of one policy by name, as JSON takes it."""


def numbers(entry: Entry, played: Played, content: dict[str, Any]) -> Numbers:
    """All that an evaluation says of a policy, under the names of an evaluation in training where that has them."""
    returns = played.returns
    # Few episodes say less of their spread than a bootstrap believes.
    ends = bootstrap(returns, lambda drawn: drawn.mean(-1)) if len(returns) >= ENOUGH else (None, None)
    known = {"return_mean": float(returns.mean()), "return_low": ends[0], "return_high": ends[1]}
    score = entry.data.normalized_score if entry.data else lambda value: None
    scores = {
        f"normalized_{name}": None if value is None else score(value)
        for name, value in zip(("score", "low", "high"), known.values(), strict=True)
    }
    return {
        "run": str(entry.path),
        "settings": entry.settings,
        "which": content["which"],
        "update": entry.facts["update"],
        "env": entry.env,
        "seed": content["seed"],
        "episodes": len(returns),
        **known,
        "return_std": float(returns.std()),
        "return_min": float(returns.min()),
        "return_max": float(returns.max()),
        "length_mean": float(played.lengths.mean()),
        **scores,
        "failures": played.failures,
        "returns": returns.tolist(),
        "lengths": played.lengths.tolist(),
    }


def table(rows: Sequence[Numbers]) -> str:
    """The numbers for people: a line a policy, what sets them apart among it."""
    folder = common(rows)
    labels = results.labels([f"{name}={value}" for name, value in row["settings"].items()] for row in rows)
    digits = 1 if max(abs(row["return_mean"]) for row in rows) >= 10 else 3
    columns = [
        ("run", [os.path.relpath(row["run"], folder) if folder else row["run"] for row in rows]),
        ("settings", labels),
        ("env", [row["env"] for row in rows] if len({row["env"] for row in rows}) > 1 else []),
        ("update", [str(row["update"]) for row in rows]),
        ("return", [_number(row["return_mean"], digits) for row in rows]),
        ("95 % interval", [_interval(row, "return", digits) for row in rows]),
        ("std", [_number(row["return_std"], digits) for row in rows]),
        ("length", [_number(row["length_mean"], 1) for row in rows]),
        ("score", [_number(row["normalized_score"], 3) for row in rows]),
        ("its interval", [_interval(row, "normalized", 3) for row in rows]),
    ]
    shown = [[name, *cells] for name, cells in columns if any(cells)]
    texts = [name in ("run", "settings", "env") for name, *_ in shown]
    widths = [max(map(len, column)) for column in shown]
    lines = [
        "  ".join(cell.ljust(width) if text else cell.rjust(width) for cell, width, text in zip(*line, strict=True))
        for line in ((row, widths, texts) for row in zip(*shown, strict=True))
    ]
    return "\n".join(line.rstrip() for line in lines)


def common(rows: Sequence[Numbers]) -> str:
    """The folder below this one that all of several policies are in, or nothing."""
    folder = shell.near(Path(os.path.commonpath([Path(row["run"]).absolute().parent for row in rows])))
    return "" if len(rows) == 1 or folder.is_absolute() or folder == Path() else str(folder)


def notes(rows: Sequence[Numbers]) -> list[str]:
    """What there is to say of a table."""
    envs = " and ".join(dict.fromkeys(row["env"] for row in rows))
    first = rows[0]
    said = [f"{first['episodes']} episodes of {envs} each, from seed {first['seed']} on"]
    said += [f"runs are in {folder}"] if (folder := common(rows)) else []
    failed = "{}: the environment failed {} times, and those episodes were begun anew"
    return said + [failed.format(row["run"], row["failures"]) for row in rows if row["failures"]]


def _interval(row: Numbers, name: str, digits: int) -> str:
    low, high = (_number(row[f"{name}_{end}"], digits) for end in ("low", "high"))
    return low and f"{low} to {high}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def write(rows: Sequence[Numbers], place: str) -> None:
    """Write the numbers as JSON to a file, or to the output where that is -. Raises UserError where that fails."""
    text = json.dumps(rows, indent=1) + "\n"
    if place == "-":
        sys.stdout.write(text)
        return
    try:
        results.atomic_write(Path(place), text.encode())
    except OSError as error:
        raise UserError(f"{place} cannot be written ({error.strerror}): choose another with --json") from None
