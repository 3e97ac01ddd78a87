"""Environments in workers are what they are here."""

import errno
import os
import signal
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import gymnasium
import numpy as np
import pytest

from awr_exp.envs import build
from awr_exp.envs import worker as module
from awr_exp.envs.fleet import Fleet, InProcess, Workers
from awr_exp.envs.worker import HangsError, Worker, WorkerDiedError, WorkerError


def play(fleet: Fleet, numbers: np.ndarray) -> list[np.ndarray]:
    """What 30 steps of the same actions bring."""
    rng = np.random.default_rng(0)
    steps = [fleet.reset(numbers, 7 + numbers)]
    steps += [fleet.step(numbers, rng.uniform(-2, 2, (len(numbers), 1)).astype(np.float32)) for _ in range(30)]
    assert not any(step.reasons for step in steps)
    return [column for step in steps for column in step[:-1]]


@pytest.mark.parametrize("numbers", [[0, 1, 2, 3, 4], [3], [4, 1]])
def test_workers_step_as_this_process_does(numbers: list[int]) -> None:
    make_env = partial(gymnasium.make, "Pendulum-v1")
    here, workers = InProcess(make_env, 3), Workers(make_env, 3, 2)
    for mine, theirs in zip(play(here, np.array(numbers)), play(workers, np.array(numbers)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype
    here.close()
    workers.close()


def test_an_environment_need_not_be_known_by_name() -> None:
    class Counting(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 100, (1,))
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, **options: object) -> tuple[np.ndarray, dict]:
            self.count = 0
            return np.zeros(1), {}

        def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
            self.count += 1
            return np.full(1, self.count), 2.0 * action, self.count == 3, False, {}

    fleet, numbers = Workers(Counting, 1, 2), np.arange(2)
    fleet.reset(numbers, numbers)
    fleet.step(numbers, np.array([0, 1]))
    obs, reward, terminated, truncated, *_ = fleet.step(numbers, np.array([0, 1]))
    fleet.close()
    assert (obs.tolist(), reward.tolist()) == ([[2], [2]], [0, 2])
    assert not (terminated | truncated).any()


def test_what_goes_wrong_in_a_worker_is_said() -> None:
    here = os.getpid()
    fleet = Workers(lambda: gymnasium.make("Pendulum-v1" if os.getpid() == here else "Nowhere-v0"), 3, 2)
    step = fleet.reset(np.arange(2), np.arange(2))
    assert np.isfinite(step.obs[0]).all()
    assert (step.moved.tolist(), list(step.reasons)) == ([True, False], [1])
    assert "NameNotFound: Environment `Nowhere`" in step.reasons[1]
    fleet.close()
    fleet = Workers(partial(gymnasium.make, "Pendulum-v1"), 3, 2)
    fleet.reset(np.arange(2), np.arange(2))
    fleet.hosts[1].process.send_signal(signal.SIGKILL)
    with pytest.raises(WorkerError, match="died"):
        play(fleet, np.arange(2))
    fleet.close()


def test_a_worker_outlives_an_exit_and_says_what_it_died_of() -> None:
    worker = Worker(lambda: SimpleNamespace(leave=lambda: sys.exit(3), die=lambda: os._exit(3)))
    for _ in range(2):
        worker.ask("leave")
        with pytest.raises(WorkerError, match="SystemExit: 3"):
            worker.answer()
    worker.ask("die")
    with pytest.raises(WorkerDiedError, match=r"a worker process died \(exit code 3\)"):
        worker.answer()
    worker.close()
    killed = Worker(dict)
    killed.process.kill()
    with pytest.raises(WorkerDiedError, match=r"a worker process died \(signal 9, Killed\)"):
        killed.answer()
    killed.close()


def test_workers_end_with_the_one_that_started_them() -> None:
    code = (
        "import gymnasium, numpy, os, signal; from functools import partial; from awr_exp.envs.fleet import Workers;"
        "f = Workers(partial(gymnasium.make, 'Pendulum-v1'), 3, 2); f.reset(numpy.arange(2), numpy.arange(2));"
        "print(*(w.process.pid for w in f.hosts[1:]), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL
    (pid,) = result.stdout.split()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{pid}")


def test_a_worker_that_hangs_where_it_begins_is_waited_for_no_longer_than_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    worker = Worker(lambda: time.sleep(600), lambda: True)
    with pytest.raises(HangsError):
        # More than a pipe holds.
        worker.ask("anything", b"0" * 1_000_000)
    worker.close()


def test_a_worker_that_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", Mock(side_effect=BlockingIOError(errno.EAGAIN, "no more")))
    with pytest.raises(WorkerError, match=r"a worker process cannot be started \(no more\)"):
        Workers(partial(gymnasium.make, "Pendulum-v1"), 3, 2)


def test_a_worker_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    worker = Worker(lambda: SimpleNamespace(hang=lambda: time.sleep(600)))
    worker.ask("hang")
    worker.close()
    assert worker.process.returncode == -signal.SIGKILL


def test_a_worker_that_hangs_is_waited_for_until_it_is_time_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    looks = iter(range(99))
    worker = Worker(lambda: SimpleNamespace(hang=lambda: time.sleep(600), wait=lambda: time.sleep(0.5)))
    worker.ask("wait")
    assert worker.answer() is None
    worker.stopped = lambda: next(looks) > 3
    worker.ask("hang")
    with pytest.raises(HangsError):
        worker.answer()
    assert next(looks) > 3
    worker.close()
    assert worker.process.returncode == -signal.SIGKILL


def test_a_worker_needs_no_torch() -> None:
    code = "import sys, awr_exp.envs.rollout, awr_exp.envs.make; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_mujoco_warns_in_the_log_and_once(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mujoco")
    caplog.set_level("INFO")
    build._hear_mujoco.cache_clear()
    fleet = InProcess(build.Make("HalfCheetah-v5", {}), 17)
    fleet.reset(np.arange(3), np.arange(3))
    fleet.close()
    assert caplog.text.count("MuJoCo: ") == len(set(caplog.messages)) > 0
    assert "WARNING" not in capfd.readouterr().out
