"""Files that may come from anybody are read as data, or refused in one line."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awr_exp import reading
from awr_exp.errors import UserError
from tests.conftest import refused

LINKS = ["train.log", "metrics.jsonl", ".result.json.tmp", "checkpoint", "recording/steps.bin", "wandb/x/y", "offline"]
LINKS += ["baseline/train.log", ".hydra", "other.log"]

TEXTS = st.text() | st.text("[]{}:,-?!&*<>='\"\\n\\ 0x_1e.~#%|@\\\\a", max_size=40)


@pytest.mark.parametrize(
    "content",
    [
        "a: &a [1]\nb: *a",
        "[" * 200_000,
        "- " * 100_000,
        "? " * 100_000,
        "a: !!python/object/apply:os.system [touch ran]",
        "a: !!bool x",
        "&a a: *a",
        "a: 1" + "0" * 30,
        "a: 0x" + "f" * 10_000,
        "a: " + "1" * 5_000,
        "1\n---\n2",
        "a: [",
        "a: 1\n#" + "a" * reading.LARGEST_YAML,
        b"a: \xff",
        b"\0",
    ],
    ids=lambda content: repr(content[:12]),
)
def test_yaml_that_would_grow_or_is_not_plain_is_refused_in_one_line(content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match="cannot be read") as refused:
        reading.read_yaml(tmp_path / "it")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, "{", "1" * 5_000, "1e5 2", '{"a": 1' + "0" * 30 + "}", "[" * 40 + "]" * 40, b"\xff", b""],
    ids=lambda content: repr(content[:12]),
)
def test_json_that_is_too_deep_or_none_is_refused_in_one_line(content: str | bytes, tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match="cannot be read") as refused:
        reading.read_json(tmp_path / "it")
    assert "\n" not in str(refused.value)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "nothing"):
        with pytest.raises(UserError, match="cannot be read"):
            reading.read_yaml(place)


@given(TEXTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "it").write_bytes(text.encode(errors="replace"))
    for read in (reading.read_yaml, reading.read_json):
        assert "\n" not in (refused(read, tmp_path / "it") or "")


def test_numbers_and_dates_are_read_as_omegaconf_does(tmp_path: Path) -> None:
    (tmp_path / "it").write_text("a: 1e-3\nb: 2024-01-01\nc: 2.5e+4\nd: null")
    assert reading.read_yaml(tmp_path / "it") == {"a": 0.001, "b": "2024-01-01", "c": 25_000.0, "d": None}


@pytest.mark.parametrize(
    "name",
    [
        "train.log",
        "metrics.jsonl",
        ".result.json.tmp",
        "checkpoint",
        "recording/steps.bin",
        "wandb/x/y",
        "offline",
        "baseline/train.log",
        ".hydra",
        "other.log",
        "optuna.study",
    ],
)
def test_a_link_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="leads out"):
        reading.check_links(run)
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(UserError, match="neither a file"):
        reading.check_links(run)


def test_a_file_with_a_second_name_elsewhere_is_refused(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    (tmp_path / ".bashrc").write_text("mine")
    (run / "train.log").hardlink_to(tmp_path / ".bashrc")
    with pytest.raises(UserError, match=r"train\.log is another file, too .*: replace it by a copy"):
        reading.check_links(run)


def test_links_inside_the_folder_and_of_others_are_fine(tmp_path: Path) -> None:
    (run := tmp_path / "run").mkdir()
    (run / "wandb").mkdir()
    (run / "wandb" / "run-1").mkdir()
    (run / "wandb" / "latest-run").symlink_to("run-1")
    # W&B's own, to its log in the user's cache folder.
    (run / "wandb" / "run-1" / "debug-core.log").symlink_to(tmp_path / "core.log")
    (run / "data").symlink_to("/tmp")
    (tmp_path / "link").symlink_to(run)
    reading.check_links(run)
    reading.check_links(tmp_path / "link")
    reading.check_links(tmp_path / "nothing")
