"""Films of episodes."""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from awr_exp.building import beside
from awr_exp.building.build import build
from awr_exp.errors import UserError
from awr_exp.training.callbacks import Callback
from awr_exp.training.evaluate import Evaluator
from awr_exp.training.run import Run
from awr_exp.training.video import RATE, STRIP, Video, film
from tests.conftest import CONTINUOUS, composed, train
from tests.test_contract import OFFLINE, MakeWalk, Rows, Walk, configuration, data_set


class Drawn(Walk):
    def render(self) -> Any:
        return np.full((6, 8, 3), 10 * self.steps, np.uint8)


class MakeDrawn(MakeWalk):
    def __call__(self) -> gymnasium.Env:
        return Drawn(self.discrete)


class Shown(Rows):
    """A logger that takes films."""

    def film(self, update: int, path: Path) -> None:
        assert path.exists()
        self.films = [*getattr(self, "films", []), update]


@pytest.mark.parametrize(("video", "steps"), [(Video(), [4, 8]), (Video(interval=2, frames=3), [2, 4, 6, 8])])
def test_each_member_has_a_film_of_an_episode_at_each_evaluation(
    video: Video, steps: list[int], tmp_path: Path
) -> None:
    cfg = configuration(OFFLINE)
    agent = build(cfg["agent"], spec=CONTINUOUS, seeds=[0, 1])
    runs = [Run(tmp_path / str(seed), logger=Shown()) for seed in agent.seeds]
    node = cfg["trainer"] | {"eval_interval": 4}
    place = {"make_env": MakeDrawn(discrete=False), "data": data_set(CONTINUOUS)}
    build(node, agent=agent, runs=runs, callbacks=[video], **place).run()
    for run in runs:
        films = sorted((run.folder / "video").iterdir())
        assert [int(path.stem) for path in films] == steps == run.logger.films  # type: ignore[union-attr]
        for path in films:
            assert 1 < imageio_ffmpeg.count_frames_and_secs(str(path))[0] <= min(8, video.frames)


@pytest.mark.parametrize("every", [1, 3])
def test_a_film_is_of_the_first_episode_of_the_evaluation(
    every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Drawn, "metadata", {"render_fps": every * RATE})
    agent = build(configuration(OFFLINE)["agent"], spec=CONTINUOUS, seeds=[0, 1])
    played = Evaluator(MakeDrawn(discrete=False), 2, 3).play(agent)
    for member in range(2):
        path = tmp_path / str(member) / "film.mp4"
        steps, told = played.lengths[member, 0], list[int]()
        gained = film(MakeDrawn(discrete=False), agent, (2, 3), member, path, told=told.append)
        assert (gained, told) == (played.returns[member, 0], [*range(1, steps + 1)])
        # One picture before the first step, then one after each or after every third, and always after the last.
        pictures, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
        assert pictures == 1 + -(-steps // every)
        assert seconds == pytest.approx(pictures / RATE, abs=0.02)


def test_a_registered_environment_is_asked_to_draw(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    small = ["trainer.env_steps=64", "trainer.envs=4", "trainer.eval_episodes=1", "schedule.samples_per_iteration=32"]
    few = ["schedule.critic_steps=1", "schedule.actor_steps=1", "network.hidden=[4]", "threads=1", "logger=jsonl"]
    cfg = composed("trainer=online", "env=cartpole", "callback=video", "callback.video.frames=5", *small, *few)
    (outcome,) = train([cfg], [tmp_path])
    assert outcome.error is None
    (path,) = (tmp_path / "video").iterdir()
    assert imageio_ffmpeg.count_frames_and_secs(str(path))[0] == 5
    assert next(imageio_ffmpeg.read_frames(str(path)))["size"] == (600, 400 + STRIP)


def test_a_run_without_what_a_video_needs_says_so_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    agent = build(configuration(OFFLINE)["agent"], spec=CONTINUOUS, seeds=[0])
    place = {"make_env": MakeDrawn(discrete=False), "data": data_set(CONTINUOUS)}
    build(configuration(OFFLINE)["trainer"], agent=agent, runs=[Run(tmp_path)], callbacks=[Video()], **place).run()
    (said,) = (record.getMessage() for record in caplog.records if "video" in record.getMessage())
    assert said.startswith("there are no more videos of this run: a video needs imageio-ffmpeg: pip install")
    assert not (tmp_path / "video").exists()


def test_a_callback_that_is_none_is_told_its_contract(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"callback=awr_exp\.types\.Spec: .* it must be a class that inherits from"):
        beside.callbacks({"callback": {"mine": {"_target_": "awr_exp.types.Spec", "obs_dim": 1}}})
    assert isinstance(beside.callbacks(composed("callback=video"))[0], Callback)
