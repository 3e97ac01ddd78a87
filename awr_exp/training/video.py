"""A callback that shows how policies act: a GIF of one episode each."""

import logging
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch

from awr_exp.agents.agent import Agent
from awr_exp.envs.episode import play
from awr_exp.envs.make import Make, opened
from awr_exp.envs.rollout import bounds, clipped
from awr_exp.errors import first_line
from awr_exp.training.callbacks import Callback, Evaluate
from awr_exp.training.evaluate import FIRST_SEED
from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)


class Video(Callback):
    """Plays an episode with the policy that is evaluated and keeps it as `video/<step>.gif` in each member's folder.

    interval: steps between episodes, None: those between evaluations; frames: the most that are kept of one. It never
    ends a run: where nothing can be shown, it says why and leaves off.
    """

    def __init__(self, interval: int | None = None, frames: int = 500) -> None:
        self.interval, self.frames = interval, frames

    def begin(self, trainer: Trainer) -> None:
        evaluations = [one for one in trainer.callbacks if isinstance(one, Evaluate)]
        if not evaluations:
            log.warning("there is no video of a policy that is not evaluated: choose an environment")
            self.interval = None
            return
        make = evaluations[0].make_env
        drawing = {"render_mode": "rgb_array"}
        self.make_env = replace(make, kwargs={**make.kwargs, **drawing}) if isinstance(make, Make) else make
        self.interval = self.interval or evaluations[0].interval

    def call(self, trainer: Trainer) -> None:
        try:
            with opened(self.make_env) as env:
                for member, run in enumerate(trainer.runs):
                    if run.error is None:
                        film = _Film(env, self.frames)
                        self._play(film, trainer.agent.averaged().some(slice(member, member + 1)))
                        film.save(run.folder / "video" / f"{trainer.step:010d}.gif")
        except Exception as error:
            log.warning("there are no more videos of this run: %s", first_line(error))
            self.interval = None

    def _play(self, env: gymnasium.Env, agent: Agent) -> None:
        limits = bounds(self.make_env, env.action_space)

        def act(obs: Any, rng: np.random.Generator) -> Any:
            own = torch.as_tensor(obs).to(agent.device, agent.dtype)
            return clipped(agent.act(own[None, None])[0, 0].cpu().numpy(), limits)

        play(env, act, FIRST_SEED, np.random.default_rng(0))


class _Film(gymnasium.Wrapper):
    """Keeps a picture of each step, up to so many."""

    def __init__(self, env: gymnasium.Env, most: int) -> None:
        super().__init__(env)
        self.most = most
        self.pictures: list[Any] = []

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.pictures.append(self.env.render())
        return obs, reward, terminated, truncated or len(self.pictures) >= self.most, info

    def save(self, path: Any) -> None:
        """Raises ValueError where the environment draws nothing."""
        from PIL import Image

        if not isinstance(self.pictures[0], np.ndarray):
            raise ValueError("the environment draws nothing with render_mode=rgb_array")
        first, *others = (Image.fromarray(picture) for picture in self.pictures)
        path.parent.mkdir(exist_ok=True)
        duration = 1_000 // self.env.metadata.get("render_fps", 30)
        first.save(path, save_all=True, append_images=others, duration=duration, loop=0)
