"""What a group says of its jobs, and how many files it has open."""

import logging
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from awr_exp.sweep import group
from awr_exp.sweep.group import Group, shortened
from awr_exp.training.progress import speaking


def test_names_of_many_jobs_stay_a_line() -> None:
    assert shortened(["a", "b"]) == "a; b"
    assert len(shortened([f"seed={number}" for number in range(12)]).split("; ")) == 12
    assert (
        shortened([f"seed={number}" for number in range(1000)])
        == "1000 jobs: seed=0; seed=1; seed=2; ...; seed=997; seed=998; seed=999"
    )


def open_logs() -> set[str]:
    opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}
    return {name for name in opened if name.endswith("train.log")}


@pytest.mark.parametrize("limit", [5 * 20 + 60, 5 * 19 + 60])
def test_logs_leave_files_to_open_to_those_that_train(
    limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job's log has what is said of it and of nobody, whether they are all open or none is."""
    monkeypatch.setattr(group.resource, "getrlimit", lambda _: (limit, limit))
    handlers = {"file": {"class": "logging.FileHandler", "filename": str(tmp_path / "0" / "train.log")}}
    config = {"version": 1, "handlers": handlers, "root": {"level": "INFO", "handlers": ["file"]}}
    folders = [tmp_path / str(number) for number in range(20)]
    for folder in folders:
        folder.mkdir()
    root = logging.getLogger()
    before = list(root.handlers)
    whole = Group([{}] * 20, folders, [folder.name for folder in folders], OmegaConf.create(config), False)
    try:
        with whole._logs():
            assert len(open_logs()) == (20 if limit > 5 * 19 + 60 else 0)
            log = logging.getLogger("awr_exp")
            log.info("for all")
            with speaking(folders[7], "7"):
                log.info("for one")
            opened = open_logs()
            log.info("for all again")
    finally:
        root.handlers = before
    assert len(opened) == (20 if limit > 5 * 19 + 60 else 0)
    for folder in folders:
        one = ["for one"] if folder.name == "7" else []
        assert (folder / "train.log").read_text().splitlines() == ["for all", *one, "for all again"]
