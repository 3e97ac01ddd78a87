"""Files that may come from anybody, read as data: of limited size and depth, and with one line for what is wrong."""

import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from awr_exp.errors import UserError

LARGEST_YAML, LARGEST_JSON = 2**18, 2**24
"""The most bytes that a file may have; ours have some thousand."""
DEEPEST = 32
"""The most lists and mappings that may lie within one another."""
LARGEST = 2**63
"""Whole numbers must be nearer to 0 than this."""


def read_yaml(path: Path) -> Any:
    """The plain content of a YAML file as OmegaConf reads it; None of an empty one.

    Raises UserError if it cannot be read, is too large or too deep, or holds aliases, tags or several documents.
    """
    text = _text(path, LARGEST_YAML)
    try:
        _check_events(text, path)
        return _checked(yaml.load(text, Loader), path)
    except yaml.YAMLError as error:
        # Its own message would quote the content.
        mark = getattr(error, "problem_mark", None)
        what = f"{getattr(error, 'problem', None) or 'malformed'}{f' in line {mark.line + 1}' if mark else ''}"
        raise UserError(f"{path} cannot be read: it is no YAML ({what})") from None
    except ValueError:  # of numbers
        raise UserError(f"{path} cannot be read: it holds a number that is none, or too large") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError if it cannot be read, is too large or too deep, or malformed."""
    return parse_json(_text(path, LARGEST_JSON), path)


def parse_json(text: str, origin: Path) -> Any:
    """Parse a text that was found in the file `origin`, as `read_json` does."""
    if len(text) > LARGEST_JSON:
        raise UserError(f"{origin} cannot be read: it is larger than {LARGEST_JSON} bytes")
    try:
        return _checked(json.loads(text), origin)
    except RecursionError:
        raise UserError(f"{origin} cannot be read: it is too deep") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{origin} cannot be read: it is no JSON ({error})") from None
    except ValueError:
        raise UserError(f"{origin} cannot be read: it holds a number that is too large") from None


def check_header(path: Path) -> None:
    """Raises UserError if a safetensors file is no file, or says that its header, which is JSON, is too large."""
    with _opened(path) as file:
        if int.from_bytes(file.read(8), "little") > LARGEST_JSON:
            raise UserError(f"{path} cannot be read: its header is larger than {LARGEST_JSON} bytes, or it is damaged")


def check_links(folder: Path) -> None:
    """Raises UserError if what a run reads and writes in its folder leads out of it, or is no ordinary file.

    Other things may lie there, too, such as links to data where somebody runs in the folder of a project.
    """
    home = folder.resolve()
    for place in (folder / name for name in (os.listdir(folder) if folder.is_dir() else ())):
        if place.name in _NEVER_OPENED:
            continue
        if place.name.endswith(".log") or place.name.lstrip(".").startswith(_OF_A_RUN):
            _check_link(place, home)
            # Links are not followed: those that stay inside lead to what is looked at anyway.
            for parent, folders, files in os.walk(place):
                for name in {*folders, *files} - _NEVER_OPENED:
                    _check_link(Path(parent, name), home)


_NEVER_OPENED = {"optuna.journal.lock", "debug-core.log"}
"""Links that Optuna and W&B make and remove, and that nobody reads or writes through."""
_OF_A_RUN = (
    *(
        "hydra",
        "metrics.jsonl",
        "result.json",
        "checkpoint",
        "curves.png",
        "origin.json",
        "lock",
        "recording",
        "recorded.txt",
    ),
    *("wandb", "offline", "baseline", "multirun.yaml", "optuna", "submitit", "stopped", "report", "video"),
    *("metrics.csv", "tensorboard", "mlflow.run"),
)
"""How the names begin, but for a dot, of all that a run or a sweep keeps in its folder, and of drafts of it."""


def _check_link(place: Path, home: Path) -> None:
    try:
        if place.is_symlink() and not place.resolve().is_relative_to(home):
            raise UserError(f"{place} is a link that leads out of its run's folder: replace it by what it points to")
        found = place.lstat()
    except (OSError, RuntimeError):  # the second of a link to itself
        raise UserError(f"{place} cannot be read: remove it") from None
    kind = found.st_mode
    if not (stat.S_ISLNK(kind) or stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        raise UserError(f"{place} is neither a file nor a folder: remove it")
    if stat.S_ISREG(kind) and found.st_nlink > 1:
        raise UserError(f"{place} is another file, too (it has several hard links): replace it by a copy")


def _text(path: Path, largest: int) -> str:
    try:
        with _opened(path) as file:
            content = file.read(largest + 1)
        if len(content) > largest:
            raise UserError(f"{path} cannot be read: it is larger than {largest} bytes")
        return content.decode()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read: it is no text in UTF-8") from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Raises OSError, and UserError for what is no ordinary file, such as a pipe, which would be waited for."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UserError(f"{path} cannot be read: it is no file")
        yield file


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes 1e-3 for a number and dates for texts, as OmegaConf does; the one in C in a fifth of the time."""


Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if not one[0].endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d[\d_]*[eE][-+]?\d+$"), list("-+0123456789"))


def _check_events(text: str, path: Path) -> None:
    """Raises UserError before anything is built of what would grow, or is not plain."""
    depth = 0
    for event in yaml.parse(text, Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UserError(f"{path} cannot be read: it is too deep")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise UserError(f"{path} cannot be read: it has aliases or tags, and should be plain")


def _checked(value: Any, origin: Path, depth: int = 0) -> Any:
    """The value. Raises UserError for what is too deep and for numbers that nothing here can hold."""
    if depth > DEEPEST:
        raise UserError(f"{origin} cannot be read: it is too deep")
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise UserError(f"{origin} cannot be read: it holds a number that is too large")
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inner:
        _checked(each, origin, depth + 1)
    return value
