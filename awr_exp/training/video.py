"""Films of episodes, as an evaluation plays them, and a callback that takes them while a run trains."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.build import MakeEnv, clips
from awr_exp.envs.rendering import drawn
from awr_exp.errors import FAILURES, UserError, named
from awr_exp.ranges import Count, checked
from awr_exp.training import logger, mp4
from awr_exp.training.callbacks import Callback
from awr_exp.training.evaluate import FIRST_SEED, Acts, Evaluator

if TYPE_CHECKING:
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)

RATE = 30
"""Pictures a second of an environment that does not say its own, and about as many as are taken of one with more."""
STRIP = 20
"""Height of the strip with the caption, in pixels."""


def film(
    make_env: MakeEnv,
    agent: Acts,
    shape: tuple[int, int],
    member: int,
    path: Path,
    first: int = FIRST_SEED,
    frames: int | None = None,
    told: Callable[[int], object] = int,
) -> float:
    """Film the first episode of a member to an mp4; its return.

    make_env: of environments that draw themselves; shape: members and episodes of the evaluation whose episode it is,
    to the last bit; first: the seed that it starts from; frames: the most pictures that are taken of it; told: is told
    how many steps were filmed, as they are. Raises UserError where the environment fails, where there is nothing to
    see, or where the file cannot be written: then there is none.
    """
    camera = Camera(path, frames, told)
    with closing(camera), closing(Evaluator(Filming(make_env, camera, clips(make_env)), *shape)) as evaluator:
        played = evaluator.play(agent, np.arange(shape[0]) == member, 1, first)
        for reason in played.given_up.values():
            raise UserError(f"{path} cannot be filmed: {reason}")
        camera.finish()
    return float(played.returns[member, 0])


class Camera:
    """Takes pictures of the one episode that was begun last, at the speed of the environment.

    Drawing takes far longer than stepping does. So of an environment with many steps a second, only so many pictures
    are taken that RATE of them are a second, and that of its last step. frames, told: as for `film`.
    """

    def __init__(self, path: Path, frames: int | None, told: Callable[[int], object]) -> None:
        self.path, self.frames, self.told = path, frames, told
        self.mp4: mp4.Mp4 | None = None
        self.error: UserError | None = None

    def begin(self, env: gymnasium.Env) -> None:
        self.close()
        rate = env.metadata.get("render_fps") or RATE
        self.every = max(1, int(rate / RATE))
        self.mp4 = mp4.Mp4(self.path, rate / self.every)
        self.steps, self.taken, self.gained = 0, 0, 0.0
        self._take(env)

    def step(self, env: gymnasium.Env, reward: float, last: bool) -> None:
        self.steps, self.gained = self.steps + 1, self.gained + reward
        if last or self.steps % self.every == 0:
            self._take(env)
        self.told(self.steps)

    def finish(self) -> None:
        """Keep the film. Raises UserError where something was wrong with it."""
        if self.error:
            raise self.error
        assert self.mp4 is not None
        self.mp4.finish()

    def close(self) -> None:
        if self.mp4:
            self.mp4.close()

    def _take(self, env: gymnasium.Env) -> None:
        if self.error or (self.frames and self.taken >= self.frames):
            return
        assert self.mp4 is not None
        self.taken += 1
        try:
            self.mp4.add(captioned(env.render(), f"step {self.steps}: return {self.gained:.1f}"))
        except UserError as error:
            self.error = error
        except FAILURES as error:
            # The episode goes on: it is no fault of the policy's, nor would it be mended by another attempt.
            self.error = UserError(f"{self.path} cannot be filmed: the environment draws nothing ({named(error)})")


@dataclass
class Filming:
    """Makes environments that are filmed. It is an env maker like that which it is made of."""

    make_env: MakeEnv
    camera: Camera
    clip_actions: bool

    def __call__(self) -> gymnasium.Env:
        return Filmed(self.make_env(), self.camera)


class Filmed(gymnasium.Wrapper):
    """Shows each step of its episodes to a camera."""

    def __init__(self, env: gymnasium.Env, camera: Camera) -> None:
        super().__init__(env)
        self.camera = camera

    def reset(self, **options: Any) -> Any:
        begun = self.env.reset(**options)
        self.camera.begin(self.env)
        return begun

    def step(self, action: Any) -> Any:
        done = self.env.step(action)
        self.camera.step(self.env, float(done[1]), last=bool(done[2] or done[3]))
        return done


def captioned(picture: Any, text: str) -> NDArray[np.uint8]:
    """The picture [height, width, 3] above a strip with a text."""
    from PIL import Image, ImageDraw

    above = Image.fromarray(picture)
    whole = Image.new("RGB", (above.width, above.height + STRIP))
    whole.paste(above)
    ImageDraw.Draw(whole).text((4, above.height + 4), text, fill="white")
    return np.asarray(whole)


@checked("callback.video")
class Video(Callback):
    """Films the first episode of the evaluation and keeps it as `video/<step>.mp4` in each member's folder.

    interval: steps between films, None: those between evaluations; frames: the most pictures of one. Loggers that take
    films get it, too. It never ends a run: where nothing can be shown, it says why and leaves off.
    """

    def __init__(self, interval: Count | None = None, frames: Count = 500) -> None:
        self.interval, self.frames = interval, frames

    def begin(self, trainer: "Trainer") -> None:
        if not trainer.evaluates:
            log.warning("there is no video of a policy that is not evaluated: choose an environment")
            self.interval = None
            return
        self.interval = self.interval or trainer.evaluates.interval
        try:
            mp4.encoder()
            self.make_env = drawn(trainer.evaluates.make_env)
        except UserError as error:
            self._leave_off(error)

    def call(self, trainer: "Trainer") -> None:
        assert trainer.evaluates is not None
        shape = trainer.agent.members, trainer.evaluates.episodes
        try:
            for member, run in enumerate(trainer.runs):
                if run.error is None:
                    path = run.folder / "video" / f"{trainer.step:010d}.mp4"
                    with trainer.bar.doing("filming"):
                        # Anew for each, so that what it draws is what the evaluation drew.
                        film(self.make_env, trainer.policy(), shape, member, path, frames=self.frames)
                    with run.speaking():
                        logger.film(run.logger, trainer.update, path)
        except Exception as error:
            self._leave_off(error)

    def _leave_off(self, error: Exception) -> None:
        log.warning("there are no more videos of this run: %s", error if isinstance(error, UserError) else named(error))
        self.interval = None
