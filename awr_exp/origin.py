"""Where a run comes from: when it began, from which commits, with which versions, and its page on W&B."""

import json
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from awr_exp.errors import UserError, printable
from awr_exp.reading import read_json
from awr_exp.results import atomic_write

ORIGIN = "origin.json"
PACKAGES = ("awr-exp", "torch", "numpy", "gymnasium", "minari", "hydra-core", "mujoco")
"""Those whose versions change what a run comes to."""
MOST, LONGEST = 12, 80
"""Entries of a record, and characters of each."""


@dataclass(frozen=True)
class Origin:
    """started: date and time with their zone, in ISO 8601; commits: by repository; versions: by package."""

    started: str = ""
    commits: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    url: str | None = None


def note(folder: Path, url: str | None = None) -> None:
    """Keep in `<folder>/origin.json` where a run that begins comes from; one that goes on keeps what it began with."""
    now = {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commits": commits(Path.cwd()),
        "versions": {"python": sys.version.split()[0], **_versions()},
    }
    before: dict[str, Any] = {}
    with suppress(UserError):
        found = read_json(folder / ORIGIN)
        before = found if isinstance(found, dict) else {}
    # A full disk costs this record alone.
    with suppress(OSError):
        atomic_write(folder / ORIGIN, (json.dumps({"url": url} | now | before, indent=1) + "\n").encode())


def read(folder: Path) -> Origin:
    """Where the run in `folder` comes from, as far as its record says so; it may be anybody's."""
    try:
        content = read_json(folder / ORIGIN)
    except UserError:
        return Origin()
    if not isinstance(content, dict):
        return Origin()
    commits = {name: hash for name, hash in _texts(content.get("commits")).items() if re.fullmatch(_HASH, hash)}
    started, url = content.get("started"), content.get("url")
    return Origin(
        started if isinstance(started, str) and re.fullmatch(r"[\dT:+.-]{10,32}", started) else "",
        commits,
        _texts(content.get("versions")),
        url if isinstance(url, str) and re.fullmatch(r"https?://[\w.:/~%-]{1,300}", url, re.ASCII) else None,
    )


def _texts(content: Any) -> dict[str, str]:
    """The short texts by name that are in a record."""
    pairs = list(content.items())[:MOST] if isinstance(content, dict) else []
    return {_line(name): _line(value) for name, value in pairs}


def _line(value: Any) -> str:
    return " ".join(printable(str(value)).split())[:LONGEST]


@cache
def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def commits(place: Path) -> dict[str, str]:
    """The commit of awr_exp, and of the repository that a folder is in, by the names of their folders."""
    home = Path(__file__).parent.parent
    found = {place.name: hash for place in (place, *place.parents) if place != home and (hash := commit(place))}
    own = commit(home) or _installed_commit()
    return dict([*list(found.items())[:1], *([("awr_exp", own)] if own else [])])


def commit(repository: Path) -> str | None:
    """The commit that is checked out in a repository, as its files say: git need not be there, and nothing runs."""
    with suppress(OSError, ValueError):
        git = repository / ".git"
        if git.is_file():
            # Of a worktree or a submodule.
            git = repository / git.read_text().removeprefix("gitdir:").strip()
        head = (git / "HEAD").read_text().strip()
        shared = git / (git / "commondir").read_text().strip() if (git / "commondir").exists() else git
        hash = _followed(head.removeprefix("ref: "), (git, shared)) if head.startswith("ref: ") else head
        return hash if re.fullmatch(_HASH, hash) else None
    return None


_HASH = r"[0-9a-f]{40}([0-9a-f]{24})?"


def _followed(reference: str, places: tuple[Path, Path]) -> str:
    """The commit that a reference stands for, or nothing."""
    for place in places:
        if (place / reference).is_file():
            return (place / reference).read_text().strip()
    lines = (places[1] / "packed-refs").read_text().splitlines()
    return next((line.partition(" ")[0] for line in lines if line.endswith(f" {reference}")), "")


def _installed_commit() -> str:
    """The commit that awr_exp was installed from, where pip took it from a repository."""
    with suppress(metadata.PackageNotFoundError, ValueError, AttributeError):
        about = json.loads(metadata.distribution("awr-exp").read_text("direct_url.json") or "{}")
        return str(about.get("vcs_info", {}).get("commit_id", ""))
    return ""
