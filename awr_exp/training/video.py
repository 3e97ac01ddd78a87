"""A callback that shows how policies act: a GIF of one episode each."""

import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from awr_exp.agents.best_of import Evaluated
from awr_exp.envs.build import Make
from awr_exp.envs.fleet import InProcess
from awr_exp.errors import first_line
from awr_exp.ranges import Count, checked
from awr_exp.surroundings import kept
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
                    own = trainer.policy().shard(slice(member, member + 1))
                    self._film(own, run.folder / "video" / f"{trainer.step:010d}.gif")
        except Exception as error:
            log.warning("there are no more videos of this run: %s", first_line(error))
            self.interval = None

    @kept()
    def _film(self, agent: Evaluated, path: Path) -> None:
        """Film an episode of the agent's only member. Raises ValueError where there is nothing to see of it."""
        pictures: list[Any] = []
        number = np.zeros(1, np.int64)
        with closing(InProcess(self.make_env, agent.spec.obs_dim)) as fleet:
            step = fleet.reset(number, np.array([FIRST_SEED]))
            while not step.reasons and not (step.terminated[0] or step.truncated[0] or len(pictures) == self.frames):
                obs = torch.as_tensor(step.obs).to(agent.device, agent.dtype)
                step = fleet.step(number, agent.act(obs[None])[0].cpu().numpy())
                pictures += [] if step.reasons else [fleet.envs[0].render()]
            if step.reasons:
                raise ValueError(f"the environment failed: {step.reasons[0]}")
            if not isinstance(pictures[0], np.ndarray):
                raise ValueError("the environment draws nothing with render_mode=rgb_array")
            rate = fleet.envs[0].metadata.get("render_fps", 30)
        from PIL import Image

        first, *others = map(Image.fromarray, pictures)
        path.parent.mkdir(exist_ok=True)
        first.save(path, save_all=True, append_images=others, duration=1_000 // rate, loop=0)
