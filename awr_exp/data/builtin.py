"""Data sets that need no network: collected by built-in policies on first use, kept as Minari data sets."""

import logging
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch

from awr_exp.data import export
from awr_exp.data.minari import load, root
from awr_exp.data.transitions import Transitions
from awr_exp.envs import behaviour
from awr_exp.envs.build import Make, opened, task
from awr_exp.envs.episode import Act, play
from awr_exp.envs.fleet import InProcess
from awr_exp.seeding import child_seed

log = logging.getLogger(__name__)

REFERENCE_EPISODES = 100
"""Episodes of the worst and of the best policy, of whose returns the reference scores of a data set are the means."""
Plan = Sequence[tuple[int, Act]]
"""A number of episodes for each of several policies."""


def pendulum_mixed(device: torch.device | str = "cpu", **options: Any) -> Transitions:
    """Pendulum-v1: 60 random episodes, 40 of a swing-up controller with much to little noise. See `select`."""
    plan = [
        (60, behaviour.pendulum_random()),
        *((n, behaviour.pendulum(s)) for n, s in ((14, 0.8), (13, 0.4), (13, 0.1))),
    ]
    id = "awr_exp/pendulum-mixed-v0"
    _ensure(id, "Pendulum-v1", plan, behaviour.pendulum_random(), behaviour.pendulum(0.0))
    return load(id, device=device, **options)


def cartpole_mixed(device: torch.device | str = "cpu", **options: Any) -> Transitions:
    """CartPole-v1: 300 episodes, from random to a controller that balances with little noise. See `select`."""
    plan = [(n, behaviour.cartpole(noise)) for n, noise in ((200, 1.0), (60, 0.8), (25, 0.6), (15, 0.3))]
    id = "awr_exp/cartpole-mixed-v0"
    _ensure(id, "CartPole-v1", plan, behaviour.cartpole(1.0), behaviour.cartpole(0.0))
    return load(id, device=device, **options)


def two_ways(device: torch.device | str = "cpu", **options: Any) -> Transitions:
    """TwoWays-v0: 200 random episodes, 600 past the rock on either side with much to little noise. See `select`."""
    plan = [(200, behaviour.two_ways_random()), *((200, behaviour.two_ways(noise)) for noise in (1.0, 0.6, 0.3))]
    id = "awr_exp/two-ways-v0"
    _ensure(id, "awr_exp.envs.two_ways:TwoWays-v0", plan, behaviour.two_ways_random(), behaviour.two_ways(0.0))
    return load(id, device=device, **options)


def pixel_grid(device: torch.device | str = "cpu", **options: Any) -> Transitions:
    """PixelGrid-v0: 1,500 episodes, from random to straight to the goal, with images of 32 x 32. See `select`."""
    plan = [(n, behaviour.pixel_grid(noise)) for n, noise in ((300, 1.0), (600, 0.7), (600, 0.4))]
    id = "awr_exp/pixel-grid-v0"
    _ensure(id, "awr_exp.envs.pixel_grid:PixelGrid-v0", plan, behaviour.pixel_grid(1.0), behaviour.pixel_grid(0.0))
    return load(id, device=device, **options)


def dark_passages(device: torch.device | str = "cpu", **options: Any) -> Transitions:
    """DarkPassages-v0: 300 episodes with much to little noise, seven in ten passages by the wet way. See `select`."""
    plan = [(100, behaviour.dark_passages(noise, wet=0.7)) for noise in (0.3, 0.15, 0.05)]
    id, worst, best = "awr_exp/dark-passages-v0", behaviour.dark_passages(1.0), behaviour.dark_passages(0.0)
    _ensure(id, "awr_exp.envs.dark_passages:DarkPassages-v0", plan, worst, best)
    return load(id, device=device, **options)


def point_maze(device: torch.device | str = "cpu", **options: Any) -> Transitions:
    """PointMaze-v0: 300 noisy walks to places that are away from their goals. See `select`."""
    walk, id = behaviour.point_maze_wanderer(0.5), "awr_exp/point-maze-v0"
    _ensure(id, "awr_exp.envs.point_maze:PointMaze-v0", [(300, walk)], walk, behaviour.point_maze(0.0))
    return load(id, device=device, **options)


def _ensure(id: str, env_id: str, plan: Plan, worst: Act, best: Act) -> None:
    """Collect the data set unless it is there. It appears whole or not at all, whoever else collects it too."""
    if export.exists(id):
        return
    export.make_place(id)
    log.info("collecting %s in %s (once)", id, root())
    rng = np.random.default_rng(child_seed(0, id))
    make_env = Make(env_id, {})
    spec = task(make_env)
    with opened(make_env) as env, closing(InProcess(make_env, spec.obs_dim)) as fleet:
        played = lambda act: play(fleet, act, int(rng.integers(2**31)), rng)  # noqa: E731
        episodes = [played(act) for count, act in plan for _ in range(count)]
        low, high = (
            float(np.mean([sum(played(act)["reward"].tolist()) for _ in range(REFERENCE_EPISODES)]))
            for act in (worst, best)
        )
        kinds = "policies from random to good, in this order" if len(plan) > 1 else "a random policy"
        about, quality = f"Episodes of {env_id} by {kinds}.", "built-in policies of mixed quality"
        export.create(id, episodes, spec, env, (low, high), algorithm_name=quality, description=about)
