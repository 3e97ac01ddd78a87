"""What this process may use of its machine: cores and memory, as the system, a container or a scheduler limits them."""

import math
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
UNLIMITED = sys.maxsize
"""Bytes, where nobody says how many."""


def cores(groups: Path = GROUPS, proc: Path = PROC) -> int:
    """The number of cores that this process may use: its affinity's, or the share of time that its groups get."""
    # macOS and Windows cannot hold a process to some of the cores.
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _folders("cpu", groups, proc) if (quota := _quota(folder)) is not None]
    return max(1, min([allowed, *(math.ceil(quota) for quota in quotas)]))


def free_memory(groups: Path = GROUPS, proc: Path = PROC) -> int:
    """Bytes that may still be taken, by the machine and by each group that limits this process."""
    return min([_available(proc), *(_left(folder) for folder in _folders("memory", groups, proc))])


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


def _quota(folder: Path) -> float | None:
    """Cores' worth of time that a group may use, if it is limited."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        return int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        share, whole = (_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        return share / whole if share > 0 else None
    return None


def _available(proc: Path) -> int:
    with suppress(OSError, ValueError):
        lines = (proc / "meminfo").read_text(encoding="utf-8").splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(line.split()[1])
    return UNLIMITED


def _left(folder: Path) -> int:
    """What a group leaves of its limit; files that are only kept in memory do not count."""
    for limit, used, idle in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):  # no limit, or no such thing here
            lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
            (kept,) = (int(line.split()[1]) for line in lines if line.startswith(f"{idle} "))
            return max(0, _number(folder / limit) - _number(folder / used) + kept)
    return UNLIMITED


def _number(file: Path) -> int:
    return int(file.read_text(encoding="utf-8"))
