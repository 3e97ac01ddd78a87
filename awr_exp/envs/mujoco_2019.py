"""MuJoCo's tasks as they were in 2019, of which published returns are: `env.id=awr_exp.envs.mujoco_2019:Ant2019-v5`.

Gymnasium's environments, whose bodies today's MuJoCo moves otherwise than the versions up to 2.1.0 did:

- In weighing a capsule those took it for the cylinder that ends halfway into its caps. Limbs weighed up to 12 % less.
- Contact began at the larger of two bodies' margins; since 3.5 it begins at their sum, in Ant at 2 cm instead of 1.

With both undone a step ends where it did in 2.1.0, to rounding or, in Ant and Humanoid, to the solver's tolerance.
"""

import warnings
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

if TYPE_CHECKING:
    import mujoco

TASKS = ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d")
INERTIA = ("body_mass", "body_inertia", "body_ipos", "body_iquat")
"""What MuJoCo's compiler derives from the shapes of a body."""


def make(task: str, **kwargs: Any) -> gymnasium.Env:
    """The `task`-v5 of Gymnasium with the masses and margins of 2019; kwargs: its own. Raises ValueError."""
    if task not in TASKS:
        # It may be a text from a data set, and gymnasium imports what stands before a colon.
        raise ValueError(f"task is {task!r}: use one of {', '.join(TASKS)}")
    env: Any = gymnasium.make(f"{task}-v5", **kwargs).unwrapped
    # Where it is missing, gymnasium has said so.
    import mujoco

    masses = weighed_as_cylinders(env.fullpath)
    for name in INERTIA:
        getattr(env.model, name)[:] = getattr(masses, name)
    mujoco.mj_setConst(env.model, env.data)
    mujoco.mj_resetData(env.model, env.data)
    if tuple(map(int, mujoco.__version__.split(".")[:2])) >= (3, 5):
        # All bodies of a task have the same one.
        env.model.geom_margin[:] /= 2
    return env


def weighed_as_cylinders(xml: str) -> "mujoco.MjModel":
    """The model in a file, with cylinders for its capsules: only their masses mean anything."""
    import mujoco

    spec = mujoco.MjSpec.from_file(xml)
    for geom in spec.geoms:
        if geom.type == mujoco.mjtGeom.mjGEOM_CAPSULE:
            geom.type = mujoco.mjtGeom.mjGEOM_CYLINDER
            radius = geom.size[0]
            if np.isfinite(geom.fromto).all():
                start, end = geom.fromto.reshape(2, 3)
                longer = radius / 2 * (end - start) / np.linalg.norm(end - start)
                geom.fromto = np.concatenate([start - longer, end + longer])
            else:
                geom.size[1] += radius / 2
    with warnings.catch_warnings(action="ignore"):
        # MuJoCo warns of what is deprecated in Gymnasium's files.
        return spec.compile()


for task in TASKS:
    gymnasium.register(
        f"{task}2019-v5",
        entry_point=f"{__name__}:make",
        max_episode_steps=gymnasium.spec(f"{task}-v5").max_episode_steps,
        kwargs={"task": task},
    )
