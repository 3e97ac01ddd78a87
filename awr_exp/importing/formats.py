"""Which files there are, and which format each is of."""

import csv
import errno
import glob
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
    ".csv.gz": "csv_file",
    ".tsv.gz": "csv_file",
    ".parquet": "parquet",
    ".npz": "npz",
    ".hdf5": "hdf5",
    ".h5": "hdf5",
}
"""The module that reads files of a suffix: its `opened(path, stack)` makes a `Table`, whose files the stack closes."""
FAILURES = (OSError, ValueError, RuntimeError, KeyError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error)
"""What their libraries raise for files that they cannot read."""
LEROBOT = Path("meta", "info.json")
"""The file by which a folder is known as a data set of LeRobot."""


def files(named: Sequence[str]) -> list[Path]:
    """The files that are named, by themselves, a pattern or a folder, in whose order of names and numbers they are.

    Raises UserError for what is not there, or of no known format.
    """
    found = [path for name in named for matched in _matching(name) for path in _below(matched)]
    if len(set(found)) < len(found):
        twice = next(path for path, count in Counter(found).items() if count > 1)
        raise UserError(f"{twice} is named twice: name each file once")
    return found


def _matching(name: str) -> list[Path]:
    """What a name stands for, which may be a pattern that no shell has replaced."""
    if Path(name).exists() or not glob.has_magic(name):
        return [Path(name)]
    if not (found := sorted(map(Path, glob.glob(name, recursive=True)), key=_natural)):
        raise UserError(f"no file matches {name}")
    return found


def kind(path: Path) -> str:
    """The suffix by which a format is known, such as .csv.gz; empty where none is."""
    name = path.name.lower()
    return max((suffix for suffix in MODULES if name.endswith(suffix)), key=len, default="")


def _below(path: Path) -> list[Path]:
    if not path.exists():
        there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, there, 1, 0.75)
        raise UserError(f"{path} is not there{f'; did you mean {path.with_name(close[0])}?' if close else ''}")
    if not path.is_dir():
        if not kind(path):
            raise UserError(f"{path} is of no format that is read: name files of {_known()}, or a folder of them")
        return [path]
    lerobot = (path / LEROBOT).is_file()
    found = [one for one in (path / "data" if lerobot else path).rglob("*") if kind(one)]
    found = sorted((one for one in found if one.is_file()), key=_natural)
    kinds = sorted(set(map(kind, found)))
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
    """Raises UserError where there are fewer steps than it says, as by an interrupted download."""
    try:
        wanted = json.loads((folder / LEROBOT).read_text(encoding="utf-8")).get("total_frames")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / LEROBOT} cannot be read: {first_line(error)}") from None
    count = 0
    for path in found:
        with opened(path) as table:
            count += table.size
    if isinstance(wanted, int) and wanted != count:
        raise UserError(f"{folder} has {count:,} steps, and {wanted:,} by its {LEROBOT}: fetch it as a whole")


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """The table that a file is. Raises UserError where it cannot be read."""
    with ExitStack() as stack:
        try:
            table: Table = import_module(f"awr_exp.importing.{MODULES[kind(path)]}").opened(path, stack)
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
