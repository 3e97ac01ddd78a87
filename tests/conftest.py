"""One thread a test process and no network: what the tests need of their surroundings."""

import copy
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
# As in an environment that is activated: printed commands are of its programs.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])

import gymnasium
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import settings

from awr_exp import command, config, sweep
from awr_exp.agents.agent import Agent
from awr_exp.agents.awr import AWR
from awr_exp.data import builtin
from awr_exp.data.builtin import cartpole_mixed, pendulum_mixed, two_ways
from awr_exp.errors import UserError
from awr_exp.layout import Entry
from awr_exp.machine import cores
from awr_exp.math import weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.results import Outcome
from awr_exp.settings import check
from awr_exp.types import Batch, Spec
from tests import warm

torch.set_num_threads(1)
# No test compares tensors of several machines, and to look for them takes seconds of imports.
torch.testing._comparison._HAS_DTENSOR = False
# The first example pays for imports, and machines are shared: time says nothing here.
settings.register_profile("awr_exp", deadline=None, max_examples=50)
settings.load_profile("awr_exp")

CONTINUOUS = Spec(obs_dim=3, action_dim=2, action_low=(-1.0, -2.0), action_high=(1.0, 4.0))
NETWORK = partial(MLP, hidden=(16, 16), activation="tanh")
DISCRETE = Spec(obs_dim=3, num_actions=4)
IMAGES = Spec(36 * 36, num_actions=4, observation=(Entry((), (36, 36), dtype="uint8"),))


def random_batch(spec: Spec, members: int, size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Batch:
    """A batch whose content means nothing but has the right shapes and ranges."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype)

    if spec.discrete:
        assert spec.num_actions is not None
        action = torch.randint(spec.num_actions, (members, size), generator=g)
    else:
        low, high = (torch.tensor(bound, dtype=dtype) for bound in (spec.action_low, spec.action_high))
        action = low + (high - low) * torch.rand(members, size, spec.action_dim, generator=g, dtype=dtype)
    end = torch.rand(members, size, generator=g)
    return Batch(
        obs=normal(members, size, spec.obs_dim),
        action=action,
        reward=normal(members, size),
        next_obs=normal(members, size, spec.obs_dim),
        terminated=end < 0.1,
        truncated=end > 0.9,
    )


def batch_for(agent: Agent, size: int, seed: int = 0) -> Batch:
    """A `random_batch` with all that an agent reads."""
    batch = random_batch(agent.spec, agent.members, size, seed, agent.dtype)
    shape, drawn = batch.reward.shape, torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(*shape, agent.noise_size, generator=drawn, dtype=agent.dtype)
    return replace(batch, noise=noise, target=batch.reward, next_action=batch.action.roll(1, 1))


def make_awr(spec: Spec = CONTINUOUS, seeds: Sequence[int] = (0,), kind: type[AWR] = AWR, **options: Any) -> AWR:
    """A small AWR in float64, so that two correct implementations agree to rounding."""
    parts: dict[str, Any] = {
        "network": NETWORK,
        "head": heads.auto,
        "advantage": LambdaReturn(0.0),
        "weighting": weights.exp_clip,
        "dtype": torch.float64,
    }
    return kind(spec, seeds=seeds, **(parts | options))


class Crashing(gymnasium.Wrapper):
    """Raises in a certain step of episodes that begin with one of certain seeds; in step 0, their reset."""

    def __init__(self, env: gymnasium.Env, seeds: Collection[int], step: int) -> None:
        super().__init__(env)
        self.seeds, self.last = seeds, step

    def reset(self, *, seed: int | None = None, **options: Any) -> Any:
        self.left = self.last if seed in self.seeds else -1
        self._crash()
        return self.env.reset(seed=seed, **options)

    def step(self, action: Any) -> Any:
        self.left -= 1
        self._crash()
        return self.env.step(action)

    def _crash(self) -> None:
        if self.left == 0:
            raise RuntimeError("the simulator crashed")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than there are cores, since tests wait for commands and for deadlines."""
    return cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end, one process would wait for another."""
    items.sort(key=lambda item: "cartpole_is_learnt" not in item.nodeid)


@pytest.fixture(params=[CONTINUOUS, DISCRETE], ids=["continuous", "discrete"])
def spec(request: pytest.FixtureRequest) -> Spec:
    return request.param


SMALL = ["experiment=smoke", "network.hidden=[16]", "logger=jsonl", "trainer.eval_episodes=1"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minari's root of all test processes, with the built-in data sets, which one of them collects."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "minari"
    root.mkdir(exist_ok=True)
    with root.with_suffix(".lock").open("a") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        # Most of the time would go to them.
        patch.setattr(builtin, "REFERENCE_EPISODES", 10)
        pendulum_mixed(), cartpole_mixed(), two_ways()
    return root


def start(
    cwd: Path, datasets: Path, *arguments: str, session: bool = False, **env: str
) -> "subprocess.Popen[str] | warm.Popen":
    """A command at work; in a fresh interpreter where it has variables of its own.

    session: in a process group of its own, as from a terminal.
    """
    surroundings = os.environ | {"MINARI_DATASETS_PATH": str(datasets), "WANDB_MODE": "offline", "COLUMNS": "200"} | env
    if not (session or env):
        return warm.Popen(arguments, cwd, surroundings)
    return subprocess.Popen(
        [sys.executable, "-m", "awr_exp.main", *arguments],
        cwd=cwd,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=session,
    )


@pytest.fixture
def cli(tmp_path: Path, datasets: Path) -> Cli:
    """Runs to the end in an empty folder."""

    def run(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        process = start(tmp_path, datasets, *arguments, **env)
        output, _ = process.communicate(timeout=240)
        assert process.returncode is not None
        return subprocess.CompletedProcess(arguments, process.returncode, output)

    return run


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory, datasets: Path) -> Path:
    """A run of SMALL to its end, by command."""
    folder = tmp_path_factory.mktemp("smoke")
    process = start(folder, datasets, *SMALL, f"hydra.run.dir={folder}/run")
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return folder / "run"


@pytest.fixture
def finished(smoke_run: Path, tmp_path: Path) -> Path:
    """A copy of it for one test alone."""
    return shutil.copytree(smoke_run, tmp_path / "run")


def trainer_of(process: "subprocess.Popen[str] | warm.Popen", run: Path) -> int:
    """The process that trains a run, once it does: the one that has its log open."""
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or "train/" not in (run / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if file.readlink() == run / "train.log":
                return int(file.parts[2])
    raise AssertionError(f"nobody trains {run}")


@cache
def _register() -> None:
    command.register()
    sweep.register()


def train(
    cfgs: Sequence[dict[str, Any]], folders: Sequence[Path], names: Sequence[str] = (), examines: bool = False
) -> list[Outcome]:
    """Train configurations as the members of one agent, each in its folder; examines: with what is measured last."""
    from awr_exp import experiment
    from awr_exp.training import curves
    from awr_exp.training.callbacks import Callback
    from awr_exp.training.run import Run

    names = names or [""] * len(cfgs)
    with pytest.MonkeyPatch.context() as patch:
        # A picture, or a diagnosis, takes as long as many of these runs; commands have theirs.
        patch.setattr(curves, "draw", lambda folder: None)
        if not examines:
            patch.setattr(experiment, "Examine", Callback)
        return experiment.train([Run(*parts) for parts in zip(folders, names, cfgs, strict=True)])


def composed(*overrides: str) -> dict[str, Any]:
    """The checked values of a configuration."""
    return copy.deepcopy(_composed(overrides))


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    _register()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        cfg = compose("config", list(overrides))
    return check(cfg, overrides)


def refused(action: Callable[..., Any], *arguments: Any) -> str | None:
    """The one line with which it ends, if it does; any other exception is a fault."""
    try:
        action(*arguments)
    except UserError as error:
        return str(error)
    return None
