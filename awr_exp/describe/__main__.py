"""`awr-exp describe id=...`: what a data set is like, and what looks wrong with it, before anything is trained."""

import argparse
import errno
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from awr_exp import messages, results, surroundings
from awr_exp.building import dataset
from awr_exp.errors import UserError, unwritable

if TYPE_CHECKING:
    from awr_exp.data.description import Description

EXAMPLES = """
A data set is named as it is for training:
  awr-exp describe id=mujoco/hopper/medium-v0            any Minari data set
  awr-exp describe id=pendulum_mixed                     one that comes with awr_exp
  awr-exp describe id=mine/first-v0 dataset.top_percent=10
  awr-exp describe --config-dir my_conf dataset=table dataset.path=log.csv
"""
PLACE = Path("outputs/datasets")
OTHER = "choose another with --out"


def main(given: list[str] | None = None) -> None:
    """Print the description and write its page; ends with one line and exit code 1 if there is nothing to describe."""
    parser = argparse.ArgumentParser(
        prog="awr-exp describe",
        description=(__doc__ or "").partition(": ")[2],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="id=..., or settings of the group dataset")
    parser.add_argument("--out", type=Path, help=f"the page; else {PLACE}/<id>.html, or none with --json")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object, and write no page")
    parser.add_argument("--config-dir", "-cd", type=Path, help="a folder with configurations of your own")
    chosen = parser.parse_intermixed_args(given)
    with messages.plain_errors(), surroundings.interruptible():
        try:
            if chosen.out:
                _make_place(chosen.out)
            found = described(chosen.settings, chosen.config_dir)
            out = chosen.out if chosen.out or chosen.json else PLACE / f"{found.id.strip('/')}.html"
            if out:
                _write(found, out)
        except UserError as error:
            sys.exit(f"error: {error}")
    from awr_exp.describe import text

    if chosen.json:
        print(json.dumps(text.as_json(found), indent=1))
        return
    print(*text.lines(found), sep="\n")
    print(f"\npage: {out}")


def described(given: list[str], own: Path | None = None) -> "Description":
    """The description of the data set that these overrides choose; own: a folder of own configurations."""
    node = dataset.chosen(given, own)
    # Only now what takes seconds to import.
    from awr_exp.building import contracts
    from awr_exp.building.build import build
    from awr_exp.data.description import describe
    from awr_exp.data.transitions import Transitions

    with surroundings.usual(), Heard() as heard:
        data = build(node)
        contracts.check_made("dataset", node, data, Transitions)
        return describe(data, heard.said)


def _write(found: "Description", out: Path) -> None:
    """Write the page at once or not at all."""
    from awr_exp.describe import page

    content = page.render(found)
    _make_place(out)
    try:
        results.atomic_write(out, content.encode(errors="replace"))
    except OSError as error:
        raise unwritable(out, error, OTHER) from None


def _make_place(out: Path) -> None:
    """Make the folder of the page. Raises UserError where there can be none."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
    except OSError as error:
        raise unwritable(out, error, OTHER) from None


class Heard(logging.Handler):
    """Keeps the warnings that are logged while it listens, without the name of the data set that they are about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self.logger = logging.getLogger("awr_exp")

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().removeprefix("warning: ")
        about, _, rest = text.partition("': ")
        self.said.append(rest if rest and about.startswith("data set '") else text)

    def __enter__(self) -> "Heard":
        self.before, self.logger.propagate = self.logger.propagate, False
        self.logger.addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        self.logger.removeHandler(self)
        self.logger.propagate = self.before


if __name__ == "__main__":
    main()
