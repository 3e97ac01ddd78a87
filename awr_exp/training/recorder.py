"""What an online run collects, as a Minari data set."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.data import export
from awr_exp.data.recording import Recording
from awr_exp.envs.make import MakeEnv
from awr_exp.envs.rollout import Stretch
from awr_exp.errors import UserError
from awr_exp.networks.acting import Uniform
from awr_exp.seeding import numpy_generator
from awr_exp.types import Spec

log = logging.getLogger(__name__)

REFERENCE_EPISODES = 20
"""Played at random for the data set's ref_min_score."""


class Recorder:
    """Keeps one member's steps in its folder, and writes those of whole episodes as data set `dataset_id` at the end.

    last_steps: only so many, the newest; checkpoints: only the `checkpoint_steps` steps from each of these environment
    steps on. What goes wrong with it, such as a full disk, ends the recording and not the run. Raises UserError for an
    id that is none, or is taken.
    """

    def __init__(
        self,
        dataset_id: str,
        last_steps: int | None,
        checkpoints: Sequence[int] | None,
        checkpoint_steps: int,
        folder: Path,
        spec: Spec,
        envs: int,
    ) -> None:
        export.check_new(dataset_id, "recorder.dataset_id")
        self.id, self.last_steps, self.spec = dataset_id, last_steps, spec
        self.windows = None if checkpoints is None else [(begin, begin + checkpoint_steps) for begin in checkpoints]
        self.recording: Recording | None = Recording(folder / "recording", spec, envs)
        self.gap = True

    def facts(self) -> dict[str, Any]:
        """What a checkpoint needs of it."""
        return {"steps": self.recording.steps if self.recording else 0, "gap": self.gap}

    def resume(self, facts: dict[str, Any]) -> None:
        """Go on from the `facts` of a checkpoint."""
        if self.recording is None:
            return
        lost = self.recording.steps < facts["steps"]
        if lost:
            log.warning("%s has lost steps: episodes that were open then are not recorded", self.recording.path)
        self.recording.cut(facts["steps"])
        self.gap = facts["gap"] or lost

    def add(self, step: int, stretch: Stretch, member: int, first: NDArray[np.bool_]) -> None:
        """A stretch that begins at environment step `step`; first [S, E]: where episodes begin."""
        if self.recording is None:
            return
        if self.windows is not None and not any(begin <= step < end for begin, end in self.windows):
            self.gap = True
            return
        names = ("obs", "next_obs", "action", "reward", "terminated", "truncated")
        parts = {name: getattr(stretch, name)[:, member] for name in names}
        if not self.spec.discrete:
            parts["action"] = np.clip(parts["action"], self.spec.action_low, self.spec.action_high)
        begins = first.astype(np.int8)
        if self.gap:
            # An episode that began unseen, or before the last window ended.
            begins[0] = np.where(first[0], 1, -1)
        self.gap = False
        try:
            self.recording.add(**parts, first=begins)
        except OSError as error:
            log.warning("recording ends here: %s cannot be written (%s)", self.recording.path, error.strerror)
            # What it has would only be in the way of checkpoints.
            self.recording.delete()
            self.recording = None

    def finish(self, make_env: MakeEnv, best: float) -> None:
        """Write the data set; best: the best mean return of an evaluation, its ref_max_score."""
        if self.recording is None:
            return
        env = make_env()
        try:
            buffers = list(self.recording.episodes(self.last_steps))
            if not buffers:
                raise UserError("no episode has come to an end")
            returns = [sum(buffer.rewards) for buffer in buffers]
            # Without an evaluation, the best episode is the best that is known.
            reference = random_return(make_env, self.spec), best if np.isfinite(best) else max(returns)
            about = "Steps of an online run of advantage-weighted regression, as they were collected."
            if not export.create(self.id, buffers, env, "AWR", reference, about):
                raise UserError("another one of this id is there by now")
        except Exception as error:
            log.warning("data set %s was not written: %s; its steps are in %s", self.id, error, self.recording.path)
            return
        finally:
            env.close()
        self.recording.delete()
        log.info(
            "data set %s: %d episodes, return %.1f ± %.1f", self.id, len(returns), np.mean(returns), np.std(returns)
        )
        log.info("train on it: python -m awr_exp.main dataset=minari dataset.id=%s", self.id)


def random_return(make_env: MakeEnv, spec: Spec) -> float:
    """Mean return of uniformly random actions."""
    env, player, returns = make_env(), Uniform(spec), []
    for episode in range(REFERENCE_EPISODES):
        rng = numpy_generator(0, "reference", episode)
        obs, _ = env.reset(seed=episode)
        total, done = 0.0, False
        while not done:
            action = player(np.asarray(obs)[None], player.draw(rng, 1))[0]
            obs, reward, terminated, truncated, _ = env.step(action)
            total, done = total + float(reward), terminated or truncated
        returns.append(total)
    env.close()
    return float(np.mean(returns))
