"""What is on a terminal of 80 columns: nothing is broken within a word, and commands go on as in a shell."""

import io
import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from awr_exp import shell
from awr_exp.shell import Paste
from awr_exp.training import progress
from awr_exp.training.progress import Bar, closing_table


@pytest.fixture(scope="module")
def terminal() -> Iterator[Console]:
    with pytest.MonkeyPatch.context() as patch:
        console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO())
        patch.setattr(progress, "get_console", lambda: console)
        yield console


@given(st.lists(st.text(st.characters(exclude_categories=["C"]), max_size=50), min_size=1, max_size=9))
def test_a_command_goes_on_in_the_next_line(terminal: Console, words: list[str]) -> None:
    with terminal.capture() as captured:
        closing_table([("return", "1")], [("go on with", Paste(shlex.join(words)))])
    said = captured.get().partition("go on with: ")[2]
    # As a shell does, and shlex does not.
    assert shlex.split(said.replace("\\\n", "")) == words


def test_commands_in_the_log_can_be_pasted_and_nothing_of_a_sentence_is_lost(terminal: Console) -> None:
    handler, again = progress.TerminalHandler(), shell.command("resume=outputs/runs/2026-01-01/10-00-00", *["a=1"] * 20)
    for text, folded in (("go on with: %s", True), ("the run's, go on with: %s", False)):
        with terminal.capture() as captured:
            handler.emit(logging.LogRecord("x", logging.INFO, "", 0, text, (again,), None))
        said = captured.get()
        assert said.replace("\\\n ", "").replace("  ", " ").strip() == text % again
        assert (max(map(len, said.splitlines())) <= 80) == folded


def test_no_path_is_broken(terminal: Console) -> None:
    paths = [f"outputs/runs/2026-01-01/10-00-00-123456/{'a' * size}" for size in (9, 35, 60, 99)]
    sentence = " ".join(["A long sentence about the run in", *paths])
    with terminal.capture() as captured:
        closing_table([("return", "1")], [("diagnosis", sentence)])
    lines = captured.get().strip().splitlines()
    assert set(paths) <= set(" ".join(lines).split())
    assert all(len(line) <= 80 or line.strip() in paths for line in lines)


def test_the_bar_says_what_is_being_done_and_fits(terminal: Console) -> None:
    with Bar("learning", 100_000) as bar:
        bar.advance(50_000)
        bar.tell(evaluation="return -1187.2", health="ess 0.42 w 1.03 (switch)")

        def shown() -> str:
            with terminal.capture() as captured:
                terminal.print(bar.progress.make_tasks_table(bar.progress.tasks))
            return captured.get()

        assert shown().startswith("learning ")
        with bar.doing("evaluating"):
            line = shown()
            with progress.compiling("about 20 s"):
                assert shown().startswith("compiling, about 20 s, once ")
            assert shown().startswith("evaluating ")
        assert line.startswith("evaluating ")
        assert line.count("\n") == 1
        assert "50000/100000" in line
        assert "return -1187.2 ess 0.42 w 1.03 (switch)" in line
        assert shown().startswith("learning ")


def test_a_path_is_told_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell.near(tmp_path / "a" / "b") == Path("a/b")
    assert shell.near(Path("a/b")) == Path("a/b")
    assert shell.near(tmp_path.parent / "other") == tmp_path.parent / "other"
