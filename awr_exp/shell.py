"""Commands as a person can paste them into a shell: quoted for Hydra's grammar first, and then for the shell."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

PLAIN = re.compile(r"[\w./@%+:-]+", re.ASCII)
"""What neither Hydra nor a shell takes for anything but itself."""

OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn")
"""Hydra's options that say where its configuration comes from."""


class Paste(str):
    """A command that somebody may paste into a shell."""


def override(name: str, value: Any) -> str:
    """The override that gives a setting this value, in Hydra's grammar."""
    return f"{name}={_grammar(value)}"


def words(*arguments: str) -> Paste:
    """Arguments as a shell reads them."""
    return Paste(shlex.join(arguments))


def command(*arguments: str, module: str = "awr_exp.main") -> Paste:
    """What runs a module of this environment with these arguments."""
    if _on_path(module):
        return words(module, *arguments)
    python = "python" if _on_path("python") else sys.executable
    return words(python, "-m", module, *arguments)


def near(path: Path) -> Path:
    """The path as one would type it here: from the current folder, if it lies within."""
    with suppress(OSError, ValueError):
        return path.absolute().relative_to(Path.cwd())
    return path


def once_more(*changes: str, without: Iterable[str] = ()) -> Paste:
    """The command line of this process with changed overrides, and without those that are named."""
    names = {key(change) for change in changes} | set(without)
    return command(*(one for one in sys.argv[1:] if key(one) not in names), *changes)


def with_own_parts(*overrides: str) -> Paste:
    """A command with these overrides that finds configurations where this process did."""
    return command(*sources(sys.argv[1:]), *overrides)


def sources(arguments: Sequence[str]) -> list[str]:
    """What of a command line says where configurations come from."""
    found: list[str] = []
    for place, one in enumerate(arguments):
        if one in OPTIONS:
            found += arguments[place : place + 2]
        elif key(one) in (*OPTIONS, "hydra.searchpath"):
            found.append(one)
    return found


def key(argument: str) -> str:
    """What an override, or an option of Hydra's, is about."""
    return argument.partition("=")[0].lstrip("+~")


def _on_path(program: str) -> bool:
    """Whether this environment's program of that name is the one that a shell finds."""
    found = _found(program, os.environ.get("PATH"))
    return found is not None and Path(found).parent == Path(sys.executable).parent


@cache
def _found(program: str, path: str | None) -> str | None:
    return shutil.which(program, path=path)


def _grammar(value: Any) -> str:
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        return repr(float(value))
    from hydra._internal.grammar.utils import escape_special_characters
    from hydra.core.override_parser.types import Quote, QuotedString

    if isinstance(value, Mapping):
        # Hydra takes keys without quotes only.
        entries = (f"{escape_special_characters(str(name))}:{_grammar(one)}" for name, one in value.items())
        return "{" + ",".join(entries) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_grammar, value)) + "]"
    text = str(value)
    if PLAIN.fullmatch(text) and not _is_no_text(text):
        return text
    # What OmegaConf would take for an interpolation is not meant as one.
    return QuotedString(re.sub(r"(\\*)\$\{", r"\1\1\\${", text), Quote.double).with_quotes()


def _is_no_text(plain: str) -> bool:
    """Whether Hydra, or our own reading of Python's None, would take it for another value than a text."""
    try:
        float(plain)
    except ValueError:
        return plain.lower() in ("null", "none", "true", "false")
    return True
