"""What a machine, a container or a scheduler leaves to a process, from files as the kernel writes them."""

import os
from pathlib import Path

import pytest

from awr_exp import machine

CPU_2 = {"cpu.max": "150000 100000\n"}
CPU_1 = {"cpu.cfs_quota_us": "150000\n", "cpu.cfs_period_us": "100000\n"}
MEMORY_2 = {"memory.max": "1000\n", "memory.current": "600\n", "memory.stat": "anon 1\ninactive_file 50\n"}
MEMORY_1 = {
    "memory.limit_in_bytes": "1000\n",
    "memory.usage_in_bytes": "600\n",
    "memory.stat": "inactive_file 7\ntotal_inactive_file 50\n",
}
OWN = {2: "0::/a/b\n", 1: "12:cpu,cpuacct:/a/b\n3:memory:/a/b\n0::/\n"}
PLACES = {
    2: ["", "a", "a/b", "unified/a/b"],
    1: ["{}", "{}/a", "{}/a/b"],
}


def lay(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))


@pytest.mark.parametrize(("version", "place"), [(version, place) for version in PLACES for place in PLACES[version]])
def test_limits_of_a_group_and_of_those_above_it_count(
    version: int, place: str, tmp_path: Path, four_cores: None
) -> None:
    groups, proc = tmp_path / "groups", tmp_path / "proc"
    lay(proc / "self", {"cgroup": OWN[version]})
    assert machine.cores(groups, proc) == 4
    assert machine.free_memory(groups, proc) == machine.UNLIMITED
    lay(groups / place.format("cpu,cpuacct"), {2: CPU_2, 1: CPU_1}[version])
    lay(groups / place.format("memory"), {2: MEMORY_2, 1: MEMORY_1}[version])
    assert machine.cores(groups, proc) == 2
    assert machine.free_memory(groups, proc) == 450
    # The tightest counts, wherever it is.
    lay(groups / {2: "a", 1: "cpu,cpuacct/a"}[version], {"cpu.max": "10000 100000\n"})
    assert machine.cores(groups, proc) == 1


def test_the_limits_of_others_do_not_count(tmp_path: Path, four_cores: None) -> None:
    groups, proc = tmp_path / "groups", tmp_path / "proc"
    lay(proc / "self", {"cgroup": "0::/a/b\n4:memory:/../other\n"})
    for place in ("other", "a/c", "memory/other", "cpu/a"):
        lay(groups / place, CPU_2 | MEMORY_2)
    lay(groups, {"cpu.max": "max 100000\n", "memory.max": "max\n"})
    assert machine.cores(groups, proc) == 4
    assert machine.free_memory(groups, proc) == machine.UNLIMITED


def test_no_limit_is_none(tmp_path: Path, four_cores: None) -> None:
    lay(tmp_path / "cpu", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"})
    lay(tmp_path / "memory", MEMORY_1 | {"memory.limit_in_bytes": "9223372036854771712\n"})
    lay(tmp_path, {"meminfo": "MemTotal: 9000 kB\nMemFree: 100 kB\nMemAvailable:    700 kB\n"})
    assert machine.cores(tmp_path, tmp_path) == 4
    assert machine.free_memory(tmp_path, tmp_path) == 700 * 1024
    assert machine.free_memory() > 0


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert machine.cache_home() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert machine.cache_home() == Path("/somewhere")
