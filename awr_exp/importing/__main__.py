"""`awr-exp import FILE ... id=mine/robot-v0`: a Minari data set of your own files."""

import sys
from collections.abc import Sequence

from awr_exp.errors import UserError
from awr_exp.importing.arguments import parse
from awr_exp.importing.plan import plan
from awr_exp.surroundings import interruptible


def main(words: Sequence[str] | None = None) -> None:
    """Import files, and say what came of it; ends with one line and exit code 1 where something is wrong."""
    # A signal is as Ctrl-C: the command says how to go on.
    with interruptible():
        try:
            planned = plan(parse(words))
            # As in main: a mistake is answered before anything heavy is imported.
            from awr_exp.importing.importer import run

            print(*run(planned), sep="\n")
        except UserError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("stopped: the same command goes on", file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
