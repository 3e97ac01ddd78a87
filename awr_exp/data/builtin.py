"""Data sets that need no network: collected by built-in policies on first use, kept as Minari data sets."""

import logging
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch

from awr_exp.data import export
from awr_exp.data.minari import load, root
from awr_exp.data.transitions import Transitions
from awr_exp.envs import behaviour
from awr_exp.seeding import child_seed

log = logging.getLogger(__name__)

Plan = Sequence[tuple[int, behaviour.Behaviour]]
"""How many episodes by which policy."""


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


def _ensure(id: str, env_id: str, plan: Plan, worst: behaviour.Behaviour, best: behaviour.Behaviour) -> None:
    """Collect the data set unless it is there. It appears whole or not at all, whoever else collects it too."""
    if export.exists(id):
        return
    export.make_place(id)
    log.info("collecting %s in %s (once)", id, root())
    env = gymnasium.make(env_id)
    rng = np.random.default_rng(child_seed(0, id))
    buffers = [_episode(env, policy, rng) for count, policy in plan for _ in range(count)]
    worst_return, best_return = (
        float(np.mean([sum(_episode(env, policy, rng).rewards) for _ in range(100)])) for policy in (worst, best)
    )
    about = f"Episodes of {env_id} by policies from random to good, in this order."
    quality = "built-in policies of mixed quality"
    export.create(id, buffers, env, env.action_space, quality, (worst_return, best_return), about)
    env.close()


def _episode(env: gymnasium.Env, policy: behaviour.Behaviour, rng: np.random.Generator) -> Any:
    from minari.data_collector import EpisodeBuffer

    obs, _ = env.reset(seed=int(rng.integers(2**31)))
    observations: list[Any] = [obs]
    actions: list[Any] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        action = policy(np.asarray(obs)[None], rng)[0]
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(obs)
        actions.append(action)
        rewards.append(float(reward))
    unfinished = [False] * (len(rewards) - 1)
    return EpisodeBuffer(
        observations=np.stack(observations),
        actions=np.stack(actions),
        rewards=rewards,
        terminations=[*unfinished, bool(terminated)],
        truncations=[*unfinished, bool(truncated)],
        infos={},
    )
