"""Checkpoints that are damaged or made up: a run that should go on from one says in a line why it cannot."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from awr_exp.errors import UserError
from awr_exp.math.advantages import LambdaReturn
from awr_exp.training import checkpoint
from awr_exp.training.trainer import Trainer
from tests.conftest import CONTINUOUS, make_awr
from tests.training import test_offline, test_online
from tests.training.test_online import CARTPOLE, REFRESHED

INTERVALS = {"report_interval": 1000, "eval_interval": 1000}


def offline(folder: Path) -> Trainer:
    agent = make_awr(CONTINUOUS, [0], advantage=LambdaReturn(0.9))
    return test_offline.trainer([folder], agent, updates=4, checkpoint_interval=3, **INTERVALS)


def online(folder: Path) -> Trainer:
    agent = test_online.agent(CARTPOLE, REFRESHED, [0])
    return test_online.trainer([folder], agent, REFRESHED, env_steps=100, checkpoint_interval=75, **INTERVALS)


@pytest.fixture(scope="module", params=[offline, online])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What trains, and a run of it that was killed on its way."""
    folder = tmp_path_factory.mktemp("run")
    request.param(folder).run()
    _, last = sorted((folder / "checkpoint").glob("update_*"))
    last.unlink()
    return request.param, folder


METADATA: list[tuple[str, Any]] = [
    *[(name, value) for name in ("update", "summed", "step", "added", "counts") for value in (None, "1", -1, [], 1.5)],
    *[(name, {}) for name in ("finished", "returns", "best")],
    ("latest", {"train/ess": "x"}),
    ("latest", ["train/ess"]),
    ("returns", [["x"]]),
    ("best", "high"),
    ("owed", "no"),
    ("finished", [3]),
    ("counts", {}),
    ("added", 10**9),
]
STATE: list[tuple[str, Callable[[Tensor], Tensor] | None]] = [
    *[(name, None) for name in ("actor.theta", "critic.alive", "replay", "collect.length", "collect.actions")],
    *[(name, lambda tensor: tensor[..., :-1]) for name in ("actor.theta", "replay", "target", "collect.sums")],
    *[(name, lambda tensor: tensor.unsqueeze(0)) for name in ("critic.theta", "sums.ess", "collect.return")],
    *[(name, lambda tensor: tensor.bool()) for name in ("actor.mean", "sums.ess", "collect.length", "replay")],
    *[(name, lambda tensor: tensor * math.nan) for name in ("actor.theta", "critic.square", "replay")],
    ("replay", lambda replay: replay.index_fill(-1, torch.tensor([4]), 10.0**9)),
    ("replay", lambda replay: replay.index_fill(-1, torch.tensor([4]), -1)),
    ("replay", lambda replay: replay.index_fill(-1, torch.tensor([4]), 0.5)),
    *[("replay.apart", change) for change in (None, torch.zeros_like, torch.logical_not, Tensor.int)],
    *[("replay.final", change) for change in (None, lambda rows: rows[:-1], lambda rows: rows * math.nan)],
    ("collect.length", lambda length: -length),
    ("collect.length", lambda length: length + 10**12),
    ("collect.actions", lambda actions: actions[:0]),
]


def test_it_goes_on_from_nothing_that_does_not_fit(run: tuple[Callable[[Path], Trainer], Path], tmp_path: Path) -> None:
    make, whole = run
    folder = shutil.copytree(whole, tmp_path / "run")
    (path,) = (folder / "checkpoint").glob("update_*")
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = json.loads(file.metadata()["facts"])
    cases = 0
    for name, change in [*METADATA, *STATE]:
        if name in metadata:
            save_file(state, path, {"facts": json.dumps(metadata | {name: change})})
        elif name in state:
            others = {other: tensor for other, tensor in state.items() if other != name}
            here = {name: change(state[name]).contiguous()} if change else {}
            save_file(others | here, path, {"facts": json.dumps(metadata)})
        else:
            continue
        cases += 1
        with pytest.raises(UserError) as refused:
            make(folder).resume()
        assert "\n" not in str(refused.value), (name, change)
    assert cases > 25


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o700, 0o600)])
def test_who_may_read_a_run_may_read_its_checkpoints(folder: int, file: int, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint").chmod(folder)
    assert checkpoint.save(tmp_path, 1, {"a": torch.zeros(1)}, {})
    (saved,) = (tmp_path / "checkpoint").iterdir()
    assert saved.stat().st_mode & 0o777 == file


def test_it_goes_on_from_what_it_has_written(run: tuple[Callable[[Path], Trainer], Path], tmp_path: Path) -> None:
    make, whole = run
    trainer = make(shutil.copytree(whole, tmp_path / "run"))
    trainer.resume()
    trainer.run()
    assert trainer.runs[0].error is None


def test_a_run_of_the_version_before_goes_on(tmp_path: Path) -> None:
    """Its checkpoint did not say what its steps count, and how many sums it holds under another name."""
    offline(tmp_path).run()
    (_, last), whole = sorted((tmp_path / "checkpoint").glob("update_*")), checkpoint.latest(tmp_path)
    assert whole is not None
    state, metadata = whole
    counts = metadata.pop("counts")
    before = {name: value for name, value in metadata.items() if name not in ("unit", "step", "update")}
    summed = next(iter(counts.values()), 0)
    checkpoint.save(tmp_path, metadata["update"], state, before | {"summed": summed})
    second = offline(tmp_path)
    second.resume()
    assert (second.step, second.update) == (4, 4)
    assert second.learners[0].means.counts == counts
    assert last.exists()
