import logging
from pathlib import Path

import pytest

from awr_exp.training.curves import draw
from awr_exp.training.loggers import Jsonl


def size(png: Path) -> tuple[int, int]:
    header = png.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


def evaluations(jsonl: Jsonl) -> None:
    for update in (100, 200, 300):
        jsonl.log(update, {"eval/return_mean": float(update), "eval/return_std": 10.0})


def test_every_metric_gets_its_panel_and_absent_ones_take_no_room(tmp_path: Path) -> None:
    evaluations(Jsonl(tmp_path / "cloning"))
    full = Jsonl(tmp_path / "awr")
    evaluations(full)
    full.log(0, {"dataset/return_mean": 150.0, "baseline/return_mean": 0.5})
    full.log(100, {"train/value_loss": 90.0, "train/ess": 0.4})
    full.log(200, {"train/value_loss": 2.0, "train/ess": float("nan")})

    pictures = [draw(tmp_path / "cloning"), draw(tmp_path / "awr")]

    assert pictures == [tmp_path / "cloning" / "curves.png", tmp_path / "awr" / "curves.png"]
    one, three = (size(picture) for picture in pictures if picture)
    assert (three[0], three[1]) == (3 * one[0], one[1])
    assert sorted(path.name for path in (tmp_path / "awr").iterdir()) == ["curves.png", "metrics.jsonl"]


@pytest.mark.parametrize("loss", [-1.0, 0.0, 3.0])
def test_one_point_and_any_sign_of_the_loss_can_be_drawn(tmp_path: Path, loss: float) -> None:
    Jsonl(tmp_path).log(0, {"train/value_loss": loss})
    assert draw(tmp_path)


def test_nothing_to_draw_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Jsonl(tmp_path).log(1, {"train/ess": float("inf"), "train/entropy": 1.0})
    assert draw(tmp_path) is None
    assert draw(tmp_path / "absent") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


def test_a_picture_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluations(Jsonl(tmp_path))
    (tmp_path / "curves.png").mkdir()
    assert draw(tmp_path) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]
