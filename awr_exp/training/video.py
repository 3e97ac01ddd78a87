"""A callback that shows how policies act: a GIF of one episode each."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch

from awr_exp.agents.agent import Agent
from awr_exp.envs.build import Make, MakeEnv, clips
from awr_exp.envs.episode import play
from awr_exp.envs.fleet import InProcess
from awr_exp.errors import first_line
from awr_exp.ranges import Count, checked
from awr_exp.training.callbacks import Callback, Evaluate
from awr_exp.training.evaluate import FIRST_SEED

if TYPE_CHECKING:
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)


@checked("callback.video")
class Video(Callback):
    """Plays an episode with the policy that is evaluated and keeps it as `video/<step>.gif` in each member's folder.

    interval: steps between episodes, None: those between evaluations; frames: the most that are kept of one. It never
    ends a run: where nothing can be shown, it says why and leaves off.
    """

    def __init__(self, interval: Count | None = None, frames: Count = 500) -> None:
        self.interval, self.frames = interval, frames

    def begin(self, trainer: "Trainer") -> None:
        evaluations = [one for one in trainer.callbacks if isinstance(one, Evaluate)]
        if not evaluations:
            log.warning("there is no video of a policy that is not evaluated: choose an environment")
            self.interval = None
            return
        make = evaluations[0].make_env
        drawing = {"render_mode": "rgb_array"}
        self.make_env = replace(make, kwargs={**make.kwargs, **drawing}) if isinstance(make, Make) else make
        self.interval = self.interval or evaluations[0].interval

    def call(self, trainer: "Trainer") -> None:
        try:
            for member, run in enumerate(trainer.runs):
                if run.error is None:
                    film = _Film(self.make_env, self.frames)
                    _play(trainer.agent.averaged().shard(slice(member, member + 1)), film)
                    film.save(run.folder / "video" / f"{trainer.step:010d}.gif")
        except Exception as error:
            log.warning("there are no more videos of this run: %s", first_line(error))
            self.interval = None


def _play(agent: Agent, film: "_Film") -> None:
    """One episode of the agent's only member."""

    def act(obs: Any, rng: np.random.Generator) -> Any:
        own = torch.as_tensor(obs).to(agent.device, agent.dtype)
        return agent.act(own[None, None])[0, 0].cpu().numpy()

    fleet = InProcess(film, agent.spec.obs_dim)
    try:
        play(fleet, act, FIRST_SEED, np.random.default_rng(0))
    finally:
        fleet.close()


class _Film:
    """Makes an environment of which each step is kept as a picture, up to `most` of them, where its episode ends."""

    def __init__(self, make_env: MakeEnv, most: int) -> None:
        self.make_env, self.most, self.clip_actions = make_env, most, clips(make_env)
        self.pictures: list[Any] = []
        self.rate = 30

    def __call__(self) -> gymnasium.Env:
        env = self.make_env()
        self.rate = env.metadata.get("render_fps", self.rate)
        return _Filmed(env, self)

    def save(self, path: Path) -> None:
        """Raises ValueError where the environment draws nothing."""
        from PIL import Image

        if not isinstance(self.pictures[0], np.ndarray):
            raise ValueError("the environment draws nothing with render_mode=rgb_array")
        first, *others = map(Image.fromarray, self.pictures)
        path.parent.mkdir(exist_ok=True)
        first.save(path, save_all=True, append_images=others, duration=1_000 // self.rate, loop=0)


class _Filmed(gymnasium.Wrapper):
    def __init__(self, env: gymnasium.Env, film: _Film) -> None:
        super().__init__(env)
        self.film = film

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.film.pictures.append(self.env.render())
        return obs, reward, terminated, truncated or len(self.film.pictures) >= self.film.most, info
