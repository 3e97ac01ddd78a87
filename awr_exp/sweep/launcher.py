"""The fused launcher: jobs that differ only in what stacks are trained as the members of one model."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from awr_exp import config, results
from awr_exp.errors import UserError
from awr_exp.training.progress import OfRun

log = logging.getLogger(__name__)


@dataclass
class Job:
    """A job whose folder is there, with its `.hydra/`; `result` is what Hydra gets back in the end."""

    config: DictConfig
    result: JobReturn
    folder: Path
    content: dict[str, Any]
    name: str = ""

    def finish(self, value: Any) -> None:
        self.result.return_value = value
        self.result.status = JobStatus.COMPLETED

    def fail(self, error: Exception) -> None:
        # Of this kind Hydra prints the message alone; a traceback, if any, is in the job's log.
        self.result.return_value = CompactHydraException(f"error: {error}")
        self.result.status = JobStatus.FAILED


class Fused(Launcher):
    """Trains jobs that differ only in what stacks as one model, the others after one another.

    Each job has what it would have alone: folder, configuration, log, metrics, checkpoints, W&B run, JobReturn.
    max_members: of one model; None for as many as fit the device's memory.
    """

    def __init__(self, max_members: int | None = None) -> None:
        self.max_members = max_members

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train all jobs. A failed one has its error in its JobReturn and costs the others nothing."""
        # torch takes a second to import: not before a sweep is known to be right.
        from awr_exp.sweep import experiment, stacking

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = [self.open(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        found = [
            results.read(job.folder, results.parsed(overrides))
            for job, overrides in zip(jobs, job_overrides, strict=True)
        ]
        names = results.varied(found)
        groups: dict[Any, list[Job]] = {}
        for job, run in zip(jobs, found, strict=True):
            job.name = results.label(run, names)
            if job.result.status == JobStatus.FAILED:
                continue
            if job.config.sweep.resume and run.status == results.FINISHED:
                job.finish(run.metrics.get(job.content["objective"]))
                continue
            try:
                # Members of one model go on from one update.
                key = stacking.group_key(job.content), experiment.reached(job.folder)
            except UserError as error:
                job.fail(error)
                continue
            groups.setdefault(key, []).append(job)
        ready = [
            group[i : i + (self.max_members or len(group))]
            for group in groups.values()
            for i in range(0, len(group), self.max_members or len(group))
        ]
        if ready:
            log.info("%d jobs to train in %d groups: %s", sum(map(len, ready)), len(ready), self.config.hydra.sweep.dir)
        else:
            log.info("nothing left to train: %s", self.config.hydra.sweep.dir)
        for group in ready:
            self.train(group, experiment.train)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        return [job.result for job in jobs]

    def open(self, overrides: Sequence[str], number: int) -> Job:
        """Compose a job and make its folder, the way that Hydra does it for a single one."""
        cfg = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(cfg):
            cfg.hydra.job.id = str(number)
            cfg.hydra.job.num = number
        folder = Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)
        try:
            result = run_job(
                task_function=config.content,
                config=cfg,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                # Callbacks are told of the job when it starts to train, not now.
                hydra_context=HydraContext(self.context.config_loader, Callbacks()),
                configure_logging=False,
            )
        except OSError as error:
            failed = Job(cfg, JobReturn(overrides=list(overrides)), folder, {})
            failed.fail(UserError(f"{folder} cannot be written: {error.strerror or error}"))
            return failed
        if result.status == JobStatus.FAILED:
            failed = Job(cfg, result, folder, {})
            failed.fail(result._return_value)
            return failed
        content, result.status = result.return_value, JobStatus.UNKNOWN
        return Job(cfg, result, folder, content)

    def train(self, jobs: Sequence[Job], train: Any) -> None:
        callbacks = self.context.callbacks
        for job in jobs:
            callbacks.on_job_start(config=job.config, task_function=self.task_function)
        log.info("training %s", "; ".join(job.name for job in jobs))
        with _logs(jobs):
            try:
                outcomes = train(*zip(*((job.content, job.folder, job.name) for job in jobs), strict=True))
            except UserError as error:
                log.error("error: %s", error)
                for job in jobs:
                    job.fail(error)
            except Exception as error:
                log.exception("these jobs failed; please report it if the reason is not yours")
                for job in jobs:
                    job.fail(error)
            else:
                for job, outcome in zip(jobs, outcomes, strict=True):
                    if outcome.error is None:
                        job.finish(outcome.metrics.get(job.content["objective"]))
                    else:
                        job.fail(outcome.error)
        for job in jobs:
            callbacks.on_job_end(config=job.config, job_return=job.result)


@contextmanager
def _logs(jobs: Sequence[Job]) -> Iterator[None]:
    """The terminal for all jobs; for each its own log file with what is said of it and of nobody in particular."""
    configure_log(jobs[0].config.hydra.job_logging, jobs[0].config.hydra.verbose)
    root = logging.getLogger()
    files = []
    for first in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        root.removeHandler(first)
        first.close()
        for job in jobs:
            try:
                file = logging.FileHandler(job.folder / Path(first.baseFilename).name)
            except OSError as error:
                log.warning("%s has no log: %s", job.folder, error.strerror or error)
                continue
            file.setFormatter(first.formatter)
            file.addFilter(OfRun(job.folder))
            files.append(file)
            root.addHandler(file)
    try:
        yield
    finally:
        for file in files:
            root.removeHandler(file)
            file.close()
