"""Where a run comes from is read of a repository's files, and believed of a record only as far as it can be true."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awr_exp import origin

HASH = "0123456789abcdef" * 2 + "01234567"


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_the_one_that_git_says(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    git(home, "init", "-q")
    assert origin.commit(home) is None
    git(home, "commit", "-q", "--allow-empty", "-m", "one")
    first = git(home, "rev-parse", "HEAD")
    assert origin.commit(home) == first
    git(home, "pack-refs", "--all")
    assert origin.commit(home) == first
    git(home, "worktree", "add", "-q", "-b", "other", "../tree")
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "two")
    assert origin.commit(tmp_path / "tree") == git(tmp_path / "tree", "rev-parse", "HEAD") != first
    git(home, "checkout", "-q", "--detach")
    assert origin.commit(home) == first
    (home / "inner").mkdir()
    assert origin.commits(home / "inner")["mine"] == first


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none", "ref: ../../secret", "x" * 40, "ref: "])
def test_of_a_broken_repository_nothing_is_said(tmp_path: Path, head: str) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert origin.commit(tmp_path) is None


def test_a_run_that_goes_on_keeps_what_it_began_with(tmp_path: Path) -> None:
    origin.note(tmp_path, "https://wandb.ai/a/b/runs/c")
    first = origin.read(tmp_path)
    assert first.started[:2] == "20"
    assert {"python", "awr-exp", "torch"} <= first.versions.keys()
    assert first.url == "https://wandb.ai/a/b/runs/c"
    origin.note(tmp_path, "https://wandb.ai/a/b/runs/d")
    assert origin.read(tmp_path) == first
    # What cannot be written costs the record alone.
    origin.note(tmp_path / "nowhere")


ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
RECORDS = st.fixed_dictionaries({}, optional={name: ANYTHING for name in ("started", "commits", "versions", "url")})


@given(RECORDS | ANYTHING)
def test_anybodys_record_is_read_as_far_as_it_can_be_true(
    tmp_path_factory: pytest.TempPathFactory, record: Any
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / origin.ORIGIN).write_text(json.dumps(record))
    found = origin.read(folder)
    assert found.url is None
    assert found.commits == {}
    assert all(text.isprintable() and len(text) <= origin.LONGEST for text in found.versions.values())


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://a b", 'https://"onclick', "file:///etc", "https://"])
def test_a_page_that_is_none_is_not_linked(tmp_path: Path, url: str) -> None:
    content = {"url": url, "commits": {"mine": HASH, "yours": "<b>"}, "started": "<b>2026-01-01"}
    (tmp_path / origin.ORIGIN).write_text(json.dumps(content))
    assert origin.read(tmp_path) == origin.Origin(commits={"mine": HASH})
