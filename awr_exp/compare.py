"""`python -m awr_exp.compare A B`: two runs side by side, in what they differ, how they ended, and their curves."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awr_exp import listing, results, shell
from awr_exp.errors import UserError, printable
from awr_exp.report import settings
from awr_exp.surroundings import say
from awr_exp.training import rows
from awr_exp.training.rows import Series

CURVES = (
    "eval/return_mean", "collect/return_mean", "fqe/return_mean", "train/value_loss", "train/explained_variance",
    "train/ess", "train/mean_weight", "train/clipped", "train/kl_behavior", "train/actor_loss",
)  # fmt: skip
"""The metrics whose curves are shown, of those that a run has."""
PLACES = 6
"""Points of a curve."""
NAME, VALUE, CELL = 28, 25, 8
"""Columns of a name, of a value, and of a point of a curve."""


@dataclass(frozen=True)
class Side:
    """A run as it is compared.

    entry: how it stands; config: its values by dotted names, of parts what was chosen; series: of each metric; unit:
    what these are counted in.
    """

    entry: listing.Entry
    config: Mapping[str, Any]
    series: Mapping[str, Series]
    unit: str


def read(folder: Path) -> Side:
    """Read the files of a run. Raises UserError where they are not those of one run."""
    if results.folders(folder) != [folder]:
        raise UserError(f"{folder} is not the folder of a run")
    entry = listing.run(folder)
    if entry.status == listing.BROKEN:
        raise UserError(entry.error)
    content = results.configuration(folder)
    try:
        series, unit = rows.series(folder)
    except (OSError, OverflowError) as error:
        raise UserError(f"{folder / rows.METRICS} cannot be read: {error}") from None
    return Side(entry, settings.flat(content), series, unit)


def told(a: Side, b: Side) -> Iterator[str]:
    """The lines of a comparison."""
    yield f"A  {listing.short(a.entry.folder)}"
    yield f"B  {listing.short(b.entry.folder)}"
    yield from _table("settings that differ", _differences(a, b), "there are none")
    yield from _table("results", _results(a.entry, b.entry) | _last(a.series, b.series))
    yield from _curves(a, b)


def _differences(a: Side, b: Side) -> dict[str, tuple[str, str]]:
    """The settings in which two runs differ, but for those that one of them has only because of its options."""

    def value(side: Side, name: str) -> str:
        found = side.config.get(name, "-")
        return json.dumps(found) if found is None or isinstance(found, bool) else str(found)

    def follows(name: str) -> bool:
        group = name.partition(".")[0]
        chosen = a.config.get(group) != b.config.get(group) and name != group
        lacking = name not in a.config or name not in b.config
        return lacking and chosen and name not in {*a.entry.changed, *b.entry.changed}

    names = [name for name in dict.fromkeys([*a.config, *b.config]) if value(a, name) != value(b, name)]
    # What an agent has of other groups is told where it is set.
    names = [name for name in names if not (follows(name) or any(name.endswith(f".{one}") for one in names))]
    return {name: (value(a, name), value(b, name)) for name in names}


def _results(a: listing.Entry, b: listing.Entry) -> dict[str, tuple[str, str]]:
    return {
        "status": (a.status, b.status),
        "health": (a.health or "-", b.health or "-"),
        "updates": (str(a.update), str(b.update)),
        **({"environment steps": (str(a.env_steps), str(b.env_steps))} if a.env_steps or b.env_steps else {}),
        **({"error": (a.error or "-", b.error or "-")} if a.error or b.error else {}),
    }


def _last(a: Mapping[str, Series], b: Mapping[str, Series]) -> dict[str, tuple[str, str]]:
    """The last value of what was evaluated."""
    wanted = [name for name in dict.fromkeys([*a, *b]) if name.startswith(("eval/", "fqe/"))]

    def last(series: Mapping[str, Series], name: str) -> str:
        return listing.number(series[name][max(series[name])]) if name in series else "-"

    return {name: (last(a, name), last(b, name)) for name in wanted}


def _table(title: str, content: Mapping[str, tuple[str, str]], without: str = "") -> Iterator[str]:
    yield ""
    yield f"{title:<{NAME}} {'A':<{VALUE}} B" if content else f"{title}: {without}"
    for name, (left, right) in content.items():
        cells = [printable(one) for one in (f"  {name}", left, right)]
        if len(cells[0]) <= NAME and len(cells[1]) <= VALUE:
            yield f"{cells[0]:<{NAME}} {cells[1]:<{VALUE}} {cells[2]}"
        else:
            yield from (cells[0], f"    A  {cells[1]}", f"    B  {cells[2]}")


def _curves(a: Side, b: Side) -> Iterator[str]:
    """The curves of both runs at the same places, or, where these are counted in other units, each at its own."""
    same = a.unit == b.unit
    ends = [max((max(series) for series in side.series.values()), default=0) for side in (a, b)]
    goals = [max(ends)] * 2 if same else ends
    places = [[goal * part // (PLACES - 1) for part in range(PLACES)] for goal in goals]
    yield ""
    if same:
        yield _row(f"curves, at {a.unit}", map(str, places[0]))
    else:
        yield "curves"
        for mark, side, own in zip("AB", (a, b), places, strict=True):
            yield _row(f"  {mark}, at {side.unit}", map(str, own))
    for name in CURVES:
        known = [(mark, side, own) for mark, side, own in zip("AB", (a, b), places, strict=True) if name in side.series]
        for mark, side, own in known:
            title = f"  {name}" if mark == known[0][0] else ""
            yield _row(f"{title:<{NAME - 2}} {mark}", _along(side.series[name], own))


def _along(series: Series, places: list[int]) -> Iterator[str]:
    """The values of a curve that were the newest at these places, where anything was new since the place before."""
    before = -1
    for place in places:
        newest = max((step for step in series if before < step <= place), default=None)
        yield "" if newest is None else listing.number(series[newest])
        before = place


def _row(title: str, cells: Iterable[str]) -> str:
    return f"{title:<{NAME}}" + "".join(f"{cell:>{CELL}}" for cell in cells).rstrip()


def _check(folders: Sequence[Path]) -> None:
    """Raises UserError where a sweep is among the folders: sweeps are compared by a report."""
    for folder in folders:
        if (count := len(results.folders(folder))) > 1:
            report = shell.command(*map(str, folders), module="awr_exp.report")
            raise UserError(
                f"{folder} holds {count} runs: name one of them; a report compares all runs of both: {report}"
            )


def main(arguments: list[str] | None = None) -> None:
    """Print the comparison; ends with one line and exit code 1 where a folder is not that of a run."""
    parser = argparse.ArgumentParser(prog="awr-exp compare", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("a", type=Path, metavar="A", help="the folder of a run, finished or not")
    parser.add_argument("b", type=Path, metavar="B", help="that of another one")
    options = parser.parse_args(arguments)
    try:
        _check([options.a, options.b])
        say(told(read(options.a), read(options.b)))
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
