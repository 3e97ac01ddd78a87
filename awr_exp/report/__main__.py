"""`python -m awr_exp.report <sweep or run folder> ...`: the answer of a sweep on one page."""

import argparse
import sys
from pathlib import Path

from awr_exp.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    """Write the report and print its answer; ends with one line and exit code 1 if there is nothing to report."""
    parser = argparse.ArgumentParser(prog="python -m awr_exp.report", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a run or a sweep, finished or not")
    parser.add_argument(
        "--out",
        type=Path,
        help="for report.html, report.csv and report/*.png; else a sweep's own, or outputs/reports/<date>/<time>",
    )
    options = parser.parse_args(arguments)
    from awr_exp.report import page

    try:
        path, answers = page.write(options.folders, options.out or page.place(options.folders))
    except UserError as error:
        sys.exit(f"error: {error}")
    print(*answers, sep="\n")
    print(f"report: {path}")


if __name__ == "__main__":
    main()
