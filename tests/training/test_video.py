"""Pictures of episodes."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from PIL import Image

from awr_exp.building.build import build
from awr_exp.training.callbacks import Callback
from awr_exp.training.run import Run
from awr_exp.training.video import Video
from tests.conftest import CONTINUOUS, composed, train
from tests.test_contract import OFFLINE, MakeWalk, Rows, Walk, configuration, data_set


class Drawn(Walk):
    def render(self) -> Any:
        return np.full((6, 8, 3), 10 * self.steps, np.uint8)


class MakeDrawn(MakeWalk):
    def __call__(self) -> gymnasium.Env:
        return Drawn(self.discrete)


@pytest.mark.parametrize(("video", "steps"), [(Video(), [4, 8]), (Video(interval=2, frames=3), [2, 4, 6, 8])])
def test_each_member_has_a_picture_of_an_episode_at_each_evaluation(
    video: Video, steps: list[int], tmp_path: Path
) -> None:
    cfg = configuration(OFFLINE)
    agent = build(cfg["agent"], spec=CONTINUOUS, seeds=[0, 1])
    runs = [Run(tmp_path / str(seed), logger=Rows()) for seed in agent.seeds]
    node = cfg["trainer"] | {"eval_interval": 4}
    place = {"make_env": MakeDrawn(discrete=False), "data": data_set(CONTINUOUS)}
    build(node, agent=agent, runs=runs, callbacks=[video], **place).run()
    for run in runs:
        pictures = sorted((run.folder / "video").iterdir())
        assert [int(path.stem) for path in pictures] == steps
        for path in pictures:
            with Image.open(path) as picture:
                assert picture.size == (8, 6)
                assert 1 < picture.n_frames <= min(7, video.frames)


def test_a_registered_environment_is_asked_to_draw(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    small = ["trainer.env_steps=64", "trainer.envs=4", "trainer.eval_episodes=1", "schedule.samples_per_iteration=32"]
    few = ["schedule.critic_steps=1", "schedule.actor_steps=1", "network.hidden=[4]", "threads=1", "logger=jsonl"]
    cfg = composed("trainer=online", "env=cartpole", "callback=video", "callback.video.frames=5", *small, *few)
    (outcome,) = train([cfg], [tmp_path])
    assert outcome.error is None
    (path,) = (tmp_path / "video").iterdir()
    with Image.open(path) as picture:
        # Pictures that are alike are one.
        assert 1 < picture.n_frames <= 5


def test_a_callback_that_is_none_is_told_its_contract(tmp_path: Path) -> None:
    from awr_exp import experiment
    from awr_exp.errors import UserError

    with pytest.raises(UserError, match=r"callback=awr_exp\.types\.Spec: .* it must be a class that inherits from"):
        experiment._callbacks({"callback": {"mine": {"_target_": "awr_exp.types.Spec", "obs_dim": 1}}})
    assert isinstance(experiment._callbacks(composed("callback=video"))[0], Callback)
