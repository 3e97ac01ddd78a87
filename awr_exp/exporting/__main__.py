"""`awr-exp export RUN FILE`: a trained policy as one file, for programs that do without awr_exp."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from awr_exp import arguments as command_line
from awr_exp import settings
from awr_exp.errors import UserError
from awr_exp.exporting.formats import FORMATS, check_place, chosen
from awr_exp.ranges import Count, Texts, check
from awr_exp.surroundings import interruptible
from awr_exp.vocabulary import near

KNOWN: dict[str, Any] = {"which": Literal["best", "latest"], "best_of": Count | None, "sample": bool, "trust": Texts}
SETTINGS = """settings:
  which=best      the checkpoint of a run folder: best by evaluation, or latest
  best_of=N       act by the best of N samples, as Q judges them; by itself as the run was evaluated, and 1 is the mode
  sample=false    true: act by samples, which are drawn inside
  trust=[]        dotted names of own parts that the checkpoint may call
"""


def main(arguments: list[str] | None = None) -> None:
    """Write the file and say how to go on; ends with one line and exit code 1 where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="awr-exp export",
        description=(__doc__ or "").partition(": ")[2],
        epilog=SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run, or a checkpoint file")
    kinds = ", ".join(f"*{suffix} for {one.reader}" for suffix, one in FORMATS.items())
    parser.add_argument("file", type=Path, metavar="FILE", help=kinds)
    parser.add_argument("settings", nargs="*", default=[], metavar="NAME=VALUE", help="see below")
    options = parser.parse_args(arguments)
    command_line.find_own()
    try:
        with interruptible():
            print(_export(options.run, options.file, **read(options.settings)))
    except UserError as error:
        sys.exit(f"error: {error}")


def read(given: Sequence[str]) -> dict[str, Any]:
    """Settings by name. Raises UserError for one that there is not, or out of its range."""
    found = {}
    for one in given:
        name, equal, _ = one.partition("=")
        if name not in KNOWN or not equal:
            raise UserError(f"there is no setting '{one}': NAME=VALUE is of {', '.join(KNOWN)}{near(name, KNOWN)}")
        found[name] = command_line.value(one)
        check(name, found[name], KNOWN[name])
    return found


def _export(run: Path, path: Path, sample: bool = False, best_of: int | None = None, **given: Any) -> str:
    best_of = settings.samples(sample, best_of)
    chosen(path)
    check_place(path)
    # Only now what takes seconds to import.
    from awr_exp.exporting.export import export
    from awr_exp.policy import load

    policy = load(run, best_of=best_of, **given)
    export(policy, path, sample)
    return f"{path}: {policy!r}"


if __name__ == "__main__":
    main()
