"""Engines train groups: this process by itself, or others that have processes or machines of their own.

Every engine takes groups and gives back their outcomes in order. A process that dies costs its own group.
"""

import logging
import multiprocessing
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from awr_exp import results, shell
from awr_exp.errors import UserError, first_line
from awr_exp.machine import cores
from awr_exp.results import Outcome
from awr_exp.surroundings import hang_up
from awr_exp.sweep.group import Group

log = logging.getLogger(__name__)

MONTH = 30 * 24 * 60
"""Minutes of a month."""

Outcomes = list[Outcome]
Engine = Callable[..., list[Outcomes]]
"""Trains groups; takes them, the sweep's folder, the number of workers and the engine's own options."""


def here(groups: Sequence[Group], folder: Path, workers: int, options: Mapping[str, Any]) -> list[Outcomes]:
    """Train the groups one after another, in this process."""
    return [group.train() for group in groups]


def joblib(groups: Sequence[Group], folder: Path, workers: int, options: Mapping[str, Any]) -> list[Outcomes]:
    """Train in `workers` processes of this machine, which share its cores; options: of joblib.Parallel."""
    import joblib as engine

    # Loky tells each worker by OMP_NUM_THREADS how many cores are its share.
    try:
        run = engine.Parallel(n_jobs=workers, backend="loky", batch_size=1, initializer=_until_it_trains, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"hydra.launcher.options: {first_line(error)}") from None
    tasks = [engine.delayed(_train_unless_stopped)(group, folder) for group in groups]
    with _handed_on(folder) as received:
        for _ in range(2):
            try:
                outcomes = list(run(tasks))
                break
            except (Exception, KeyboardInterrupt) as error:
                if received:
                    break
                # With a process that dies its whole pool is lost. Once, all groups go on in a new one: where they were.
                log.warning("a worker process was lost: %s", first_line(error))
                outcomes = [_lost(group, folder, error) for group in groups]
    if received:
        raise SystemExit(128 + received[0])
    return outcomes


STOPPED = ".stopped"
"""A file of this name in a sweep's folder says that no more groups begin."""


@contextmanager
def _handed_on(folder: Path) -> Iterator[list[int]]:
    """Collects SIGTERM, which the worker processes get, too, and SIGINT or SIGHUP, which a terminal sends to all.

    Those that train write checkpoints and end. A second signal does not wait for that.
    """
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        (folder / STOPPED).touch()
        for worker in multiprocessing.active_children() if number == signal.SIGTERM else ():
            worker.terminate()

    before = {number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT, *hang_up())}
    (folder / STOPPED).unlink(missing_ok=True)
    try:
        yield received
    finally:
        (folder / STOPPED).unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)


_working = False
"""Whether this worker process trains a group."""


def _until_it_trains() -> None:
    """A signal ends what a worker does before its trainer listens; one that does nothing lives on.

    Its end would be that of the others.
    """

    def receive(number: int, frame: Any) -> None:
        if _working:
            raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, *hang_up()):
        signal.signal(number, receive)


def _train_unless_stopped(group: Group, folder: Path) -> Outcomes:
    global _working
    _working = True
    try:
        if (folder / STOPPED).exists():
            return _unfinished(group, folder, "the sweep was stopped")
        return _train(group, folder)
    finally:
        _working = False


def submitit(
    cluster: str, groups: Sequence[Group], folder: Path, workers: int, options: Mapping[str, Any]
) -> list[Outcomes]:
    """Train each group as a job of a SLURM cluster, or of this machine; options: of submitit's update_parameters.

    A preempted or timed-out job writes checkpoints, is queued again and goes on.
    """
    import submitit as engine

    local = cluster == "local"
    try:
        # It takes results from pickles: none but its own may lie where it looks for them.
        place = folder / ".submitit" / secrets.token_hex(8)
        executor = engine.AutoExecutor(folder=place / "%j", cluster=cluster)
        executor.update_parameters(**({"name": "awr_exp"} | (_this_machine() if local else {}) | dict(options)))
        # A job of a cluster uses the cores that it is given there; those of this machine share its cores.
        threads = max(1, cores() // max(1, len(groups))) if local else None
        jobs = [executor.submit(Requeued(threads), group) for group in groups]
    except Exception as error:
        raise UserError(f"hydra.launcher.via=submitit_{cluster}: {first_line(error)}") from None
    return [_result(job.result, group, folder) for job, group in zip(jobs, groups, strict=True)]


def _this_machine() -> dict[str, int]:
    """What submitit would otherwise take for a local job: two minutes and no GPU."""
    import torch

    return {"timeout_min": MONTH, "gpus_per_node": torch.cuda.device_count()}


@dataclass(frozen=True)
class Requeued:
    """Trains a group; queued again it goes on, for the group finds its checkpoints. threads: at most, where known."""

    threads: int | None

    def __call__(self, group: Group) -> Outcomes:
        if self.threads is not None:
            os.environ.setdefault("OMP_NUM_THREADS", str(self.threads))
        return group.train()

    def checkpoint(self, group: Group) -> Any:
        """What submitit queues in place of a job that it stopped."""
        import submitit as engine

        return engine.helpers.DelayedSubmission(self, group)


def ray(groups: Sequence[Group], folder: Path, workers: int, options: Mapping[str, Any]) -> list[Outcomes]:
    """Train each group as a task of a Ray cluster; options: `init` of ray.init, others of a task."""
    import ray as engine

    own = dict(options)
    init = own.pop("init", None) or {}
    try:
        _knock(str(init.get("address")))
        engine.init(**{"log_to_driver": True, **init})
    except Exception as error:
        raise UserError(f"hydra.launcher.via=ray: Ray cannot be reached: {first_line(error)}") from None
    try:
        task = engine.remote(**{"max_retries": 0, "num_cpus": 1, **own})(_train)
        references = [task.remote(group, folder) for group in groups]
        fetched = [partial(engine.get, reference) for reference in references]
        return [_result(fetch, group, folder) for fetch, group in zip(fetched, groups, strict=True)]
    finally:
        engine.shutdown()


def _knock(address: str) -> None:
    """Raises OSError at once where nobody answers at host:port, which Ray itself tries for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


ENGINES: dict[str, tuple[Engine, str, str]] = {
    "joblib": (joblib, "joblib", "sweep"),
    "submitit_local": (partial(submitit, "local"), "submitit", "sweep"),
    "submitit_slurm": (partial(submitit, "slurm"), "submitit", "sweep"),
    "ray": (ray, "ray", "ray"),
}
"""The engines by name, each with the package that it needs and the extra that brings it."""


def find(via: str | None) -> Engine:
    """The engine of this name. Raises UserError if there is none, or if it is not installed."""
    if via is None:
        return here
    if via not in ENGINES:
        raise UserError(f"hydra.launcher.via is {via}; it must be one of {', '.join(ENGINES)}, or null")
    engine, package, extra = ENGINES[via]
    if find_spec(package) is None:
        raise UserError(f"hydra.launcher.via={via} needs {package}: pip install 'awr-exp[{extra}]'")
    return engine


def _train(group: Group, folder: Path) -> Outcomes:
    try:
        return group.train()
    except SystemExit as stop:
        # Everything is saved. As an exit it would pass for the death of the process.
        return _unfinished(group, folder, f"its process was stopped with exit code {stop.code}")


def _result(fetch: Callable[[], Outcomes], group: Group, folder: Path) -> Outcomes:
    try:
        return fetch()
    except Exception as error:
        return _lost(group, folder, error)


def _lost(group: Group, folder: Path, error: BaseException) -> Outcomes:
    return _unfinished(group, folder, f"its process is lost ({type(error).__name__}: {first_line(error)})")


def _unfinished(group: Group, folder: Path, reason: str) -> Outcomes:
    """The outcomes of a group whose process ended early: of each job what it had finished, or how to go on."""
    found = [results.read(place) for place in group.folders]
    resume = shell.words(shell.override("sweep.resume", folder.absolute()))
    error = UserError(f"{reason}: the same command with {resume} goes on")
    return [Outcome(dict(run.metrics), None if run.status == results.FINISHED else error) for run in found]
