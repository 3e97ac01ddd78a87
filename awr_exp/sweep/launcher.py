"""The fused launcher: jobs that differ only in what stacks are trained as the members of one model."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from awr_exp import command, results, settings
from awr_exp.errors import UserError
from awr_exp.machine import cores
from awr_exp.ranges import Count, Options, Text, arguments, check_all
from awr_exp.results import Outcome
from awr_exp.sweep import engines
from awr_exp.sweep.group import Group, divided
from awr_exp.sweep.job import Job, begun, composed
from awr_exp.training import progress

log = logging.getLogger(__name__)


class Fused(Launcher):
    """Trains jobs that differ only in what stacks as one model, the others after one another or through an engine.

    Each job has what it would have alone: folder, configuration, log, metrics, checkpoints, W&B run, JobReturn.
    max_members: of one model; None for as many as fit the device's memory. via, workers, options: see
    `awr_exp.sweep.engines`; with an engine, groups are divided so that every worker has one.
    """

    def __init__(
        self,
        max_members: Count | None = None,
        via: Text | None = None,
        workers: Count | None = None,
        options: Options | None = None,
    ) -> None:
        self.max_members, self.via, self.options = max_members, via, options or {}
        self.workers = workers if workers is not None else cores() if via == "joblib" else 1

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def check(self) -> None:
        """Raises UserError if there is no such engine, if it is not installed, or for numbers that mean nothing."""
        check_all("hydra.launcher", arguments(Fused), vars(self))
        if self.via is None and self.workers != 1:
            raise UserError("hydra.launcher.workers is of an engine: give hydra.launcher.via=joblib, or leave it out")
        engines.find(self.via)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train all jobs. A failed one has its error in its JobReturn and costs the others nothing.

        Raises UserError as `check` does, or if the engine cannot be reached.
        """
        return self.launch_numbered(dict(enumerate(job_overrides, initial_job_idx)))

    def launch_numbered(self, numbered: Mapping[int, Sequence[str]]) -> Sequence[JobReturn]:
        """Train jobs under numbers of their own, as `launch` does; one whose folder is there goes on."""
        # torch takes a second to import: not before a sweep is known to be right.
        from awr_exp.building import stacking

        self.check()
        engine = engines.find(self.via)
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        progress.heard()
        folder = Path(self.config.hydra.sweep.dir)
        names = results.labels(numbered.values())
        jobs = [self.open(*job, name) for job, name in zip(numbered.items(), names, strict=True)]
        alike: dict[str, list[Job]] = {}
        for job in jobs:
            if job.result.status == JobStatus.FAILED:
                continue
            if results.finished(run := results.read(job.folder), job.content):
                job.finish(run.metrics)
            else:
                alike.setdefault(stacking.group_key(job.content), []).append(job)
        ready = divided(list(alike.values()), self.workers, self.max_members)
        settings.check_together([job.content for job in chain(*ready)])
        if ready:
            log.info("jobs to train: %d, groups: %d, folder: %s", sum(map(len, ready)), len(ready), folder)
            self.train(ready, partial(engine, folder=folder, workers=self.workers, options=self.options))
        else:
            log.log(progress.CLOSING, "nothing left to train: %s", folder)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        progress.heard()
        return [job.result for job in jobs]

    def open(self, number: int, overrides: Sequence[str], name: str) -> Job:
        """Compose a job and make its folder."""
        return begun(composed(self.context, self.config, overrides, number), name, command.content)

    def train(self, groups: Sequence[Sequence[Job]], engine: Callable[..., list[list[Outcome]]]) -> None:
        """Hand the groups to the engine and its outcomes to the jobs."""
        callbacks = self.context.callbacks
        for job in chain(*groups):
            callbacks.on_job_start(config=job.config, task_function=self.task_function)
        outcomes = engine([_group(jobs) for jobs in groups])
        for job, outcome in zip(chain(*groups), chain(*outcomes), strict=True):
            if outcome.error is None:
                job.finish(outcome.metrics)
            else:
                job.fail(outcome.error)
            callbacks.on_job_end(config=job.config, job_return=job.result)


def _group(jobs: Sequence[Job]) -> Group:
    # Resolved with the first job's values, for where it is used there may be no Hydra around.
    hydra: Any = OmegaConf.create(OmegaConf.to_container(jobs[0].config.hydra.job_logging, resolve=True))
    contents, folders, names = zip(*((job.content, job.folder.absolute(), job.name) for job in jobs), strict=True)
    return Group(contents, folders, names, hydra, jobs[0].config.hydra.verbose)
