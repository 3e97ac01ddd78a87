"""Environments that are played in by workers, which are replaced when they die, or by this process."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np

from awr_exp.envs.build import MakeEnv
from awr_exp.envs.rollout import Driver, Rollout
from awr_exp.envs.worker import Local, Stopped, Worker, WorkerDiedError
from awr_exp.networks.numpy_policy import NumpyPolicy

log = logging.getLogger(__name__)

MANY = 1_000
"""A number of environments that takes a while to be made."""


class SharedDriver:
    """A driver of `envs` environments a member, of which each worker has a share, or all without workers this process.

    restore: brings the driver of a share, which is new, to where the last one was before it was asked to play. Raises
    BrokenEnvError or WorkerError where the environments of this process or of others do not begin.
    """

    def __init__(
        self,
        make_env: MakeEnv,
        obs_dim: int,
        seeds: Sequence[int],
        envs: int,
        workers: int,
        stopped: Stopped,
        restore: Callable[[int], object],
    ) -> None:
        if (count := len(seeds) * envs) >= MANY:
            log.info("making %d environments", count)
        processes = max(1, min(workers, envs))
        self.shares = [np.arange(share, envs, processes) for share in range(processes)]
        makes = [partial(Driver, make_env, obs_dim, seeds, share.tolist()) for share in self.shares]
        self.makes = [partial(Worker, make, stopped) if workers else partial(Local, make) for make in makes]
        self.hosts: list[Worker | Local] = [make() for make in self.makes]
        self.restore = restore

    def begin(self, policy: NumpyPolicy, steps: int, key: object) -> None:
        """Begin to play, see `Driver.play`: workers are at it until `finish`."""
        self.request = "play", policy, steps, key
        for share, host in enumerate(self.hosts):
            try:
                host.ask(*self.request)
            except WorkerDiedError:
                self._replace(share)

    def finish(self) -> Rollout:
        """The rollout that was begun, of all environments. Raises what `Driver.play` and `Worker.answer` raise."""
        parts = []
        for share, host in enumerate(self.hosts):
            try:
                parts.append(host.answer())
            except WorkerDiedError:
                self._replace(share)
                parts.append(self.hosts[share].answer())
        if len(parts) == 1:
            return parts[0]
        order, names = np.argsort(np.concatenate(self.shares)), [field.name for field in fields(Rollout)][:-1]
        merged = {name: np.concatenate([getattr(part, name) for part in parts], 2).take(order, 2) for name in names}
        return Rollout(**merged, reasons=[reason for part in parts for reason in part.reasons])

    def _replace(self, share: int) -> None:
        log.warning("a worker process died: another one takes its environments from where they were")
        self.hosts[share].close()
        self.hosts[share] = self.makes[share]()
        self.restore(share)
        self.hosts[share].ask(*self.request)

    def call(self, share: int, method: str, *arguments: Any) -> Any:
        """Call a method of a share's driver, and wait for what it returns."""
        self.hosts[share].ask(method, *arguments)
        return self.hosts[share].answer()

    def close(self) -> None:
        for host in self.hosts:
            host.close()
