"""Environments that draw themselves, on machines without a display, too."""

import logging
import os
import sys
import time
from contextlib import closing

import gymnasium
import numpy as np

from awr_exp.envs.build import MakeEnv, drawing, opened
from awr_exp.envs.worker import HangsError, Worker, WorkerError
from awr_exp.errors import FAILURES, UserError, named

log = logging.getLogger(__name__)

HEADLESS = "egl", "osmesa"
"""What MuJoCo can draw with where there is no display, the quicker one first."""
LONGEST = 60.0
"""Seconds in which a first picture has to be there."""


def drawn(make: MakeEnv) -> MakeEnv:
    """What makes environments that draw themselves, of which one has been tried.

    MuJoCo is told what to draw with, unless MUJOCO_GL says so already. Raises UserError where nothing can be drawn.
    """
    make = drawing(make)
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        # pygame would look for one, and say what it thinks of there being none.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    # Of what is not installed and not needed, nobody wants to read.
    logging.getLogger("OpenGL").setLevel(logging.WARNING)
    if getattr(make, "mujoco", False) and not os.environ.get("MUJOCO_GL"):
        _choose(make)
    with opened(make) as env:
        name = f"environment '{env.spec.id if env.spec else env}'"
        try:
            env.reset(seed=0)
            picture = env.render()
        except FAILURES as error:
            _hush()
            raise UserError(f"{name} cannot be drawn here: {named(error)}") from None
    if not isinstance(picture, np.ndarray) or picture.ndim != 3 or picture.shape[2] != 3:
        raise UserError(f"{name} draws no pictures with render_mode=rgb_array")
    return make


def _choose(make: MakeEnv) -> None:
    """Set MUJOCO_GL to what works here. Raises UserError where nothing does.

    Each is tried in a process of its own: it may crash, and nothing can be tried in one that another has failed in.
    """
    reasons = []
    for backend in HEADLESS:
        os.environ["MUJOCO_GL"] = backend
        try:
            _draw_elsewhere(make)
        except (WorkerError, HangsError) as error:
            reasons.append(f"{backend}: {error}")
        else:
            return
    del os.environ["MUJOCO_GL"]
    raise UserError(
        f"MuJoCo can draw nothing here ({'; '.join(reasons)}): install EGL or OSMesa, such as the packages libegl1 or "
        "libosmesa6, or set MUJOCO_GL to what is there"
    )


def _hush() -> None:
    """Say nothing of what fails as it is taken down: what cannot draw fails so once more."""
    sys.unraisablehook = lambda told: log.debug("%s", told.exc_value)


def _draw_elsewhere(make: MakeEnv) -> None:
    """Draw one picture in another process. Raises WorkerError or HangsError where that fails or takes too long."""
    end = time.monotonic() + LONGEST

    def quietly() -> gymnasium.Env:
        _hush()
        return make()

    with closing(Worker(quietly, stopped=lambda: time.monotonic() > end)) as worker:
        for method in ("reset", "render"):
            worker.ask(method)
            worker.answer()
