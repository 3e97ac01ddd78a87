"""The tasks of 2019 move as they did: a step of each, in contact with the floor, was recorded with MuJoCo 2.1.0."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from awr_exp.data import export
from awr_exp.envs.make import from_dataset, gym
from awr_exp.envs.mujoco_2019 import TASKS, weighed_as_cylinders
from tests.envs.test_envs import source

mujoco = pytest.importorskip("mujoco")

STEPS = json.loads(Path(__file__).with_name("mujoco_2.1.0.json").read_text())
# Where there is a free body, as far as solvers agree.
TOLERANCE = {"Ant": 1e-3, "Humanoid": 1e-2}


def stepped(id: str, start: dict[str, Any]) -> Any:
    """Velocities after a step from there."""
    env: Any = gym(None, None, id)().unwrapped
    mujoco.mj_resetData(env.model, env.data)
    env.data.qpos[:], env.data.qvel[:] = start["qpos"], start["qvel"]
    mujoco.mj_forward(env.model, env.data)
    env.data.ctrl[:] = start["action"]
    mujoco.mj_step(env.model, env.data, env.frame_skip)
    return env.data.qvel


@pytest.mark.parametrize("task", TASKS)
def test_a_step_ends_where_it_did(task: str) -> None:
    start, tolerance = STEPS[task], TOLERANCE.get(task, 1e-9)
    then = np.array(start["next_qvel"])
    now = stepped(f"awr_exp.envs.mujoco_2019:{task}2019-v5", start)
    np.testing.assert_allclose(now, then, rtol=tolerance, atol=tolerance)
    # As it does not in today's.
    assert np.abs(stepped(f"{task}-v5", start) - then).max() > 10 * tolerance


@pytest.mark.parametrize("shape", ['fromto="0 0 -0.5 0 0 0.5"', 'size="0.1 0.5"'])
def test_a_capsule_weighs_what_a_cylinder_does_that_ends_halfway_into_its_caps(shape: str, tmp_path: Path) -> None:
    size = "" if "size" in shape else 'size="0.1"'
    path = tmp_path / "capsule.xml"
    geom = f'<geom type="capsule" density="1" {size} {shape}/>'
    path.write_text(f"<mujoco><worldbody><body><freejoint/>{geom}</body></worldbody></mujoco>")
    model = weighed_as_cylinders(str(path))
    mass, length = math.pi * 0.1**2 * 1.1, 1.1
    assert model.body_mass[1] == pytest.approx(mass)
    across = mass * (3 * 0.1**2 + length**2) / 12
    assert model.body_inertia[1] == pytest.approx([across, across, mass * 0.1**2 / 2])


def test_data_collected_in_one_know_where_it_is() -> None:
    env = gym(None, None, "awr_exp.envs.mujoco_2019:Hopper2019-v5")()
    assert from_dataset(source(env.spec), None)().spec.id == env.spec.id  # type: ignore[misc, union-attr]
    # And so what trains on them need not say it.
    assert export.command("a/b-v0", env).endswith("dataset.id=a/b-v0")
