"""Which files there are, and which format each is of."""

import errno
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

from awr_exp.errors import UserError, first_line
from awr_exp.importing.table import Chunk, Table

MODULES = {
    ".csv": "csv_file",
    ".tsv": "csv_file",
    ".parquet": "parquet",
    ".npz": "npz",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
}
"""The module that reads files of a suffix: its `opened(path, stack)` makes a `Table`, whose files the stack closes."""
FAILURES = (OSError, ValueError, RuntimeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What their libraries raise for files that they cannot read."""
LEROBOT = Path("meta", "info.json")
"""The file by which a folder is known as a data set of LeRobot."""


def files(named: Sequence[str]) -> list[Path]:
    """The files that are named, by themselves or by their folder, in the order of the names and numbers in it.

    Raises UserError for what is not there, or of no known format.
    """
    found = [path for name in named for path in _below(Path(name))]
    if len(set(found)) < len(found):
        twice = next(path for path, count in Counter(found).items() if count > 1)
        raise UserError(f"{twice} is named twice: name each file once")
    return found


def _below(path: Path) -> list[Path]:
    if not path.exists():
        there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, there, 1, 0.75)
        raise UserError(f"{path} is not there{f'; did you mean {path.with_name(close[0])}?' if close else ''}")
    if not path.is_dir():
        if path.suffix.lower() not in MODULES:
            raise UserError(f"{path} is of no format that is read: name files of {_known()}, or a folder of them")
        return [path]
    lerobot = (path / LEROBOT).is_file()
    found = [one for one in (path / "data" if lerobot else path).rglob("*") if one.suffix.lower() in MODULES]
    found = sorted((one for one in found if one.is_file()), key=_natural)
    kinds = sorted({one.suffix.lower() for one in found})
    if len(kinds) != 1:
        holds = f"files of {' and '.join(kinds)}: name those to import" if kinds else f"no file of {_known()}"
        raise UserError(f"{path} holds {holds}")
    if lerobot:
        _check_lerobot(path, found)
    return found


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts file_10 after file_9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", str(path))]


def _known() -> str:
    *most, last = MODULES
    return f"{', '.join(most)} or {last}"


def _check_lerobot(folder: Path, found: Sequence[Path]) -> None:
    """Raises UserError where a file for each episode is missing, as by an interrupted download."""
    try:
        wanted = json.loads((folder / LEROBOT).read_text(encoding="utf-8")).get("total_episodes")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / LEROBOT} cannot be read: {first_line(error)}") from None
    if found[0].name.startswith("episode_") and isinstance(wanted, int) and wanted != len(found):
        raise UserError(f"{folder} has {len(found)} episodes, and {wanted} by its {LEROBOT}: fetch it as a whole")


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """The table that a file is. Raises UserError where it cannot be read."""
    with ExitStack() as stack:
        try:
            table: Table = import_module(f"awr_exp.importing.{MODULES[path.suffix.lower()]}").opened(path, stack)
        except FAILURES as error:
            raise _unreadable(path, error) from None
        yield table


def chunks(table: Table, names: Sequence[str], position: int, row: int) -> Iterator[Chunk]:
    """The rows of a table, see there. Raises UserError where they cannot be read."""
    try:
        yield from table.chunks(names, position, row)
    except FAILURES as error:
        raise _unreadable(table.path, error) from None


def _unreadable(path: Path, error: BaseException) -> UserError:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EIO:
        return UserError(f"{path} cannot be read: {error.strerror}")  # type: ignore[attr-defined]
    return UserError(f"{path} is damaged, or ends in the middle ({first_line(error)}): copy or write it anew")
