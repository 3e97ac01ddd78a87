"""Data sets that need no network: collected by built-in policies on first use, kept as Minari data sets."""

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from awr_exp.data.minari import load, root
from awr_exp.data.transitions import Transitions
from awr_exp.envs import behaviour
from awr_exp.errors import UserError
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
    target = root() / id
    if (target / "data" / "metadata.json").exists():
        return
    log.info("collecting %s in %s (once)", id, root())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".collecting-") as work:
            _collect(id, Path(work), env_id, plan, worst, best)
            finished = Path(work) / id
            if not target.exists():
                os.rename(finished, target)
            elif not (target / "data" / "metadata.json").exists():
                # What a killed run of another program left behind.
                shutil.rmtree(target)
                os.rename(finished, target)
    except OSError as error:
        # Two processes may collect at once: the one that comes second uses what the first left.
        if not (target / "data" / "metadata.json").exists():
            raise UserError(
                f"{root()} cannot be written ({error.strerror}): set MINARI_DATASETS_PATH to a folder that can"
            ) from None


def _collect(
    id: str, place: Path, env_id: str, plan: Plan, worst: behaviour.Behaviour, best: behaviour.Behaviour
) -> None:
    import minari

    env = gymnasium.make(env_id)
    rng = np.random.default_rng(child_seed(0, id))
    buffers = [_episode(env, policy, rng) for count, policy in plan for _ in range(count)]
    reference = [float(np.mean([sum(_episode(env, p, rng).rewards) for _ in range(100)])) for p in (worst, best)]
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(place)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(
                id,
                buffers,
                env=env_id,
                algorithm_name="built-in policies of mixed quality",
                description=f"Episodes of {env_id} by policies from random to good, in this order.",
                author="awr_exp",
                author_email="none@example.invalid",
                code_permalink="none",
                ref_min_score=reference[0],
                ref_max_score=reference[1],
                num_episodes_average_score=100,
            )
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
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
