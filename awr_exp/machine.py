"""What this process may use of its machine: cores and memory, as the system, a container or a scheduler limits them."""

import math
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
UNLIMITED = sys.maxsize
"""The number of bytes where nobody sets a limit."""


def cores(groups: Path = GROUPS, proc: Path = PROC) -> int:
    """The number of cores that this process may use: its affinity's, or the share of time that its groups get."""
    # macOS and Windows cannot hold a process to some of the cores.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([allowed, *map(_quota, _folders("cpu", groups, proc))])))


def free_memory(groups: Path = GROUPS, proc: Path = PROC) -> int:
    """Bytes that may still be taken, by the machine and by each group that limits this process."""
    return min([_available(proc), *map(_left, _folders("memory", groups, proc))])


def cache_home() -> Path | None:
    """The user's folder of caches; None for a user who has no home, as in a container."""
    with suppress(RuntimeError):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return None


def own_cache(name: str) -> Path | None:
    """A folder among the user's caches, if it can be written, and by nobody else: for what is run from there."""
    home = cache_home()
    return own_folder(home / "awr_exp" / name) if home else None


def own_folder(path: Path) -> Path | None:
    """The folder, made if it is not there; None where it cannot be made or written, or where others can write to it."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        if is_own(path) and os.access(path, os.W_OK):
            return path
    return None


def is_own(path: Path) -> bool:
    """Whether a file or folder is this user's, no link, and nobody else can write to it. Raises OSError."""
    metadata = path.lstat()
    return metadata.st_uid == os.getuid() and not stat.S_ISLNK(metadata.st_mode) and not metadata.st_mode & 0o022


def _folders(controller: str, groups: Path, proc: Path) -> Iterator[Path]:
    """The folders that may hold the limits of this process: its control group's and those above it, in version 2 and 1.

    A container may see its group as the root, whatever the path of the group is outside.
    """
    paths = {groups: "/", groups / controller: "/"}
    with suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines():
            _, names, path = line.split(":", 2)
            if not names:
                paths |= {groups: path, groups / "unified": path}
            elif controller in names.split(","):
                paths |= {groups / names: path, groups / controller: path}
    for root, path in paths.items():
        inside = Path(path.lstrip("/"))
        if ".." not in inside.parts:
            yield from (root / part for part in (inside, *inside.parents))


def _quota(folder: Path) -> float:
    """Cores' worth of time that a group may use; infinite if it is not limited."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = map(int, " ".join((folder / file).read_text(encoding="utf-8") for file in files).split())
            return quota / period if quota > 0 else math.inf
    return math.inf


def _available(proc: Path) -> int:
    with suppress(OSError, ValueError):
        return 1024 * _number(proc / "meminfo", "MemAvailable:")
    return UNLIMITED


def _left(folder: Path) -> int:
    """What a group leaves of its limit; files that are only kept in memory do not count."""
    for limit, used, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # no limit, or no such thing here
            taken = _number(folder / used) - _number(folder / "memory.stat", idle)
            return max(0, _number(folder / limit) - taken)
    return UNLIMITED


def _number(file: Path, name: str = "") -> int:
    """The number in a file, or the one after a name that a line of it begins with."""
    (found,) = re.findall(rf"^{name}\s*(\d+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return int(found)
