"""What an online run collects, as a Minari data set."""

import logging
import math
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from awr_exp import config
from awr_exp.data import export
from awr_exp.data.recording import Recording
from awr_exp.envs.build import MakeEnv, clips, opened, task
from awr_exp.envs.episode import at_random, play_seeded
from awr_exp.envs.fleet import InProcess
from awr_exp.envs.rollout import Rollout
from awr_exp.errors import UserError
from awr_exp.ranges import Count, Steps, Text, checked
from awr_exp.training.callbacks import Callback
from awr_exp.types import Spec

if TYPE_CHECKING:
    from awr_exp.training.run import Run
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)

REFERENCE_EPISODES = 20
"""Episodes that are played at random for the data set's ref_min_score."""


@checked("recorder")
class Recorder:
    """Keeps one member's steps in its folder, and writes those of whole episodes as data set `dataset_id` at the end.

    last_steps: only the newest episodes, as few as have so many steps together; checkpoints: only the episodes that
    begin in the `checkpoint_steps` steps from each of these environment steps on; spec: of the task as it is played.
    What goes wrong with it, such as a full disk, ends the recording and not the run: the data set then has the episodes
    that were whole before. A run that goes on after it has written its data set keeps that as it is. Raises UserError
    for an id that is none, is taken or has no place.
    """

    def __init__(
        self,
        dataset_id: Text | None,
        last_steps: Count | None,
        checkpoints: Steps | None,
        checkpoint_steps: Count,
        folder: Path,
        spec: Spec,
        envs: int,
    ) -> None:
        if dataset_id is None:
            raise UserError("recorder.dataset_id is missing: give the id of the data set to write")
        self.id, self.last_steps, self.spec, self.envs = dataset_id, last_steps, spec, envs
        self.windows: list[tuple[float, float]] = [(0, math.inf)]
        if checkpoints is not None:
            self.windows = [(begin, begin + checkpoint_steps) for begin in checkpoints]
        self.recording: Recording | None = None
        self.open, self.ended = np.zeros(envs, np.bool_), False
        """Says of each environment whether its open episode is one to keep."""
        self.note = folder / "recorded.txt"
        """This file names the data set, from just before it is written on."""
        if export.exists(dataset_id) and self.note.exists() and self.note.read_bytes() == dataset_id.encode():
            log.info("data set %s is written: what comes from now on is not recorded", dataset_id)
            # Of a run that was killed in between.
            shutil.rmtree(folder / "recording", ignore_errors=True)
            return
        export.check_new(dataset_id, "recorder.dataset_id")
        export.make_place(dataset_id)
        self.note.unlink(missing_ok=True)
        self.recording = Recording(folder / "recording", spec, envs)

    def metadata(self) -> dict[str, Any]:
        """What a checkpoint needs of it."""
        steps = self.recording.steps if self.recording else 0
        return {"steps": steps, "open": self.open.tolist(), "ended": self.ended}

    def resume(self, metadata: dict[str, Any]) -> None:
        """Go on from the `metadata` of a checkpoint."""
        if self.recording is None:
            return
        lost = self.recording.steps < metadata["steps"]
        if lost:
            log.warning("%s has lost steps: episodes that were open then are not recorded", self.recording.path)
        self.recording.cut(metadata["steps"])
        self.open, self.ended = np.array(metadata["open"]) & (not lost), metadata["ended"]
        if self.ended:
            log.warning("recording ended before: what comes from now on is not recorded")

    def add(self, step: int, rollout: Rollout, member: int, first: NDArray[np.bool_]) -> None:
        """Keep a rollout that begins at environment step `step`; first [S, E]: where episodes begin."""
        if self.recording is None or self.ended:
            return
        # Each row is a step of every environment.
        number = np.arange(len(first))
        at = step + self.envs * number
        inside = np.any([(begin <= at) & (at < end) for begin, end in self.windows], 0)
        # The row where the episode began that each belongs to; -1 before this rollout.
        began = np.maximum.accumulate(np.where(first, number[:, None], -1))
        keep = np.where(began < 0, self.open, inside[began])
        self.open = keep[-1]
        rows = np.flatnonzero(keep.any(1))
        parts = {name: column[rows, member] for name, column in rollout.transitions.items()}
        if not self.spec.discrete:
            parts["action"] = np.clip(parts["action"], self.spec.action_low, self.spec.action_high)
        try:
            self.recording.add(**parts, mark=np.where(keep, first, -1)[rows])
        except OSError as error:
            # Not even when resumed: rows that are missing in the middle would make one episode of two.
            self.ended = True
            log.warning(
                "recording ends at environment step %d, and its data set gets the episodes that were whole by then: %s "
                "cannot be written (%s)",
                step,
                self.recording.path,
                error.strerror or error,
            )

    def finish(self, make_env: MakeEnv, best: float, agent: str = "unknown") -> UserError | None:
        """Write the data set, or say why not.

        best: the best mean return of an evaluation, its ref_max_score; agent: the name of whoever acted.
        """
        if self.recording is None:
            return None
        try:
            kept = self.recording.episodes(self.last_steps)
            returns = [float(episode["reward"].sum(dtype=np.float64)) for episode in kept]
            if not returns:
                raise UserError(
                    "no episode to keep has ended (give a larger trainer.env_steps or recorder.checkpoint_steps, or "
                    "other recorder.checkpoints)"
                )
            # Without an evaluation, of an episode: the best that is known.
            scores = reference(make_env, best if np.isfinite(best) else max(returns))
            about = f"Steps of an online run of agent={agent}, as they were collected."
            self.note.write_text(self.id)
            with opened(make_env) as env:
                texts = {"algorithm_name": agent, "description": about}
                episodes = self.recording.episodes(self.last_steps)
                if not export.create(self.id, episodes, self.spec, env, scores, **texts):
                    raise UserError("another one of this id is there by now: choose another recorder.dataset_id")
        except Exception as error:
            self.note.unlink(missing_ok=True)
            again = config.to_resume(self.note.parent)
            return UserError(f"data set {self.id} was not written: {error}; its steps are kept, and try again: {again}")
        self.recording.delete()
        log.info(
            "data set %s: %d episodes, return %.1f ± %.1f", self.id, len(returns), np.mean(returns), np.std(returns)
        )
        log.info("train on it: %s", export.command(self.id, env, clips(make_env)))
        return None


def reference(make_env: MakeEnv, best: float) -> tuple[float, float] | None:
    """Mean return of uniformly random actions, and `best`; None unless that is more than a deviation above it.

    None, with a warning, where the environment fails again and again: what was collected is worth more than scores.
    """
    try:
        act = at_random(spec := task(make_env))
        with closing(InProcess(make_env, spec.obs_dim)) as fleet:
            episodes = [play_seeded(fleet, act, 0, "reference", number) for number in range(REFERENCE_EPISODES)]
    except UserError as error:
        log.warning("the data set gets no reference scores: %s", error)
        return None
    returns = [float(episode["reward"].sum()) for episode in episodes]
    low = float(np.mean(returns))
    return (low, best) if best > low + np.std(returns) else None


class Record(Callback):
    """Lets the members' recorders write their data sets when all is trained.

    make_env: makes the environments that were recorded; evaluated: whether evaluations are in the same.
    """

    def __init__(self, make_env: MakeEnv, runs: Sequence["Run"], evaluated: bool) -> None:
        self.make_env, self.runs, self.evaluated = make_env, runs, evaluated

    def end(self, trainer: "Trainer") -> None:
        for run in self.runs:
            # A member that was given up goes on recording once it is resumed.
            if run.recorder and run.error is None:
                with run.speaking():
                    # What was reached in another environment is no score of this one.
                    best = run.best if self.evaluated else -math.inf
                    unwritten = run.recorder.finish(self.make_env, best, run.chosen("agent"))
                    if unwritten is not None:
                        log.error("error: %s", unwritten)
                        run.lost = run.lost or unwritten

    def metadata(self, member: int) -> dict[str, Any]:
        recorder = self.runs[member].recorder
        return {"recorder": recorder.metadata()} if recorder else {}

    def load(self, metadata: Sequence[dict[str, Any]]) -> None:
        for run, fact in zip(self.runs, metadata, strict=True):
            if run.recorder and "recorder" in fact:
                run.recorder.resume(fact["recorder"])
