"""The command that describes a data set: what it prints and writes, and what it says of bad input."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awr_exp.building import dataset
from awr_exp.data.description import describe
from awr_exp.data.minari import root
from awr_exp.describe import page, text
from awr_exp.describe.__main__ import main
from tests.data.test_description import data, episodes, with_entry


@pytest.fixture(autouse=True)
def place(datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, beside the built-in data sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(*arguments: str) -> str:
    """The line with which the command ends."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    line = str(stop.value.code)
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def test_a_data_set_is_described_in_text_and_on_a_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["id=pendulum_mixed"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert "100 episodes with 20,000 steps. 0% of the episodes terminate" in said
    assert "lie on their bounds: head=tanh_gaussian" in " ".join(said.split())
    written = place / "outputs" / "datasets" / "awr_exp" / "pendulum-mixed-v0.html"
    assert said.splitlines()[-1] == f"page: {written.relative_to(place)}"
    content = written.read_text()
    for wanted in ("prefers-color-scheme: dark", "width=device-width", "Plotly.react", "Every entry of the actions"):
        assert wanted in content, wanted
    # All that it needs is inside.
    ours = content.partition("<script>")[0] + content.rpartition("<script>")[2]
    assert not re.search(r"https?://|<link|<script src", ours)


def test_machines_read_all_of_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["dataset=cartpole_mixed", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["episodes"] == 300
    assert found["terminated"] + found["truncated"] == 1
    assert sum(found["choices"].values()) == pytest.approx(1)
    assert [one["name"] for one in found["observations"]] == ["0", "1", "2", "3"]
    assert not list(place.iterdir())


def test_rewards_are_those_of_the_task_unless_it_is_asked_otherwise() -> None:
    assert dataset.chosen(["id=pendulum_mixed"])["reward_scale"] == 1.0
    assert dataset.chosen(["id=pendulum_mixed", "dataset.reward_scale=0.5"])["reward_scale"] == 0.5
    assert dataset.chosen(["id=a/b-v0"])["id"] == "a/b-v0"


BAD = {
    "which data set? give id=...": [],
    "id=pendulm_mixed is no data set": ["id=pendulm_mixed"],
    "did you mean pendulum_mixed?": ["id=pendulm_mixed"],
    "here are awr_exp/pendulum-mixed-v0": ["id=awr_exp/pendulum-v0"],
    "dataset=none is nothing to describe": ["dataset=none"],
    "dataset.id is missing: give dataset.id=...": ["dataset=minari"],
    "agent.beta=3 is no setting of a data set": ["agent.beta=3"],
    "dataset.top_percent is 0; it must be": ["id=two_ways", "dataset.top_percent=0"],
    "choose dataset=<one of": ["dataset=twoways"],
    "there is no dataset.x": ["id=two_ways", "dataset.x=1"],
    "--config-dir nowhere is no folder": ["id=two_ways", "--config-dir", "nowhere"],
    "is a folder; choose another with --out": ["id=two_ways", "--out", "."],
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input_is_said_in_a_line_and_nothing_is_written(said: str, place: Path) -> None:
    assert said in ended(*BAD[said])
    assert not list(place.iterdir())


def test_a_broken_file_is_named_and_an_old_page_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(root() / "awr_exp" / "two-ways-v0", place / "minari" / "broken-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(place / "minari"))
    file = place / "minari" / "broken-v0" / "data" / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    old = place / "page.html"
    old.write_text("old")
    line = ended("id=broken-v0", "--out", "page.html")
    assert "data set 'broken-v0'" in line
    assert "main_data.hdf5" in line
    assert old.read_text() == "old"
    assert not list(place.glob(".page*"))


def test_own_data_sets_are_described_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "conf" / "dataset").mkdir(parents=True)
    content = "_target_: tests.describe.test_describe.mine\ncount: 12\n"
    (place / "conf" / "dataset" / "mine.yaml").write_text(content)
    main(["--config-dir", "conf", "dataset=mine", "dataset.count=20", "--json"])
    assert json.loads(capsys.readouterr().out)["episodes"] == 20


def mine(count: int, device: Any = "cpu") -> Any:
    """A data set of one's own."""
    return data(episodes(count))


def test_every_line_fits_whatever_a_data_set_holds() -> None:
    wrong = with_entry("observations", 0, 1.23456789e-30)
    wrong[0]["rewards"][0] = -1.5e30
    for found in (describe(data(wrong)), describe(data(episodes(1)))):
        lines = list(text.lines(found))
        assert max(map(len, lines)) <= 80
        assert any(line.startswith("What to look at") for line in lines)
        json.dumps(text.as_json(found), allow_nan=False)


def test_what_a_data_set_is_called_cannot_break_the_page() -> None:
    found = describe(data(episodes()))
    told = page.render(type(found)(**(vars(found) | {"id": "</h1><script>alert(1)</script>"})))
    assert "<script>alert" not in told


def test_pictures_are_of_what_there_is_to_see() -> None:
    titles = [title for title, _, _ in page.pictures(describe(data(episodes())))]
    assert titles == [
        "Returns of episodes", "Returns in their order", "Ranges of the actions", "Ranges of the observations",
    ]  # fmt: skip
    same = [one | {"rewards": np.ones(30)} for one in episodes()]
    assert "Returns of episodes" not in [title for title, _, _ in page.pictures(describe(data(same)))]


def test_shares_are_0_and_100_only_where_they_are_that() -> None:
    assert list(map(text.share, (0, 1e-9, 0.5, 1 - 1e-9, 1))) == ["0%", "<1%", "50%", ">99%", "100%"]
