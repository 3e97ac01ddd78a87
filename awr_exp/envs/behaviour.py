"""Built-in behaviour policies in NumPy, from random to good: observations [..., obs_dim] to actions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.episode import Act

TORQUE = 2.0
"""Largest torque of Pendulum-v1."""


def pendulum(noise: float) -> Act:
    """Pumps energy until the pendulum can be caught near the top; normal noise of `noise` times the torque."""

    def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        cos, sin, speed = np.moveaxis(obs, -1, 0)[..., None]
        angle = np.arctan2(sin, cos)
        # Kinetic and potential energy of the rod (length, mass 1; g = 10) below that of standing upright.
        missing = 5.0 * (1 - cos) - speed**2 / 6
        swing = TORQUE * np.sign(speed + 1e-3) * np.sign(missing)
        catch = -12.0 * angle - 3.0 * speed
        torque = np.where((cos > 0.85) & (np.abs(speed) < 3.5), catch, swing)
        torque = np.clip(torque, -TORQUE, TORQUE) + noise * TORQUE * rng.standard_normal(speed.shape)
        return np.clip(torque, -TORQUE, TORQUE).astype(np.float32)

    return act


def pendulum_random() -> Act:
    """Uniform torques."""
    return lambda obs, rng: rng.uniform(-TORQUE, TORQUE, (*obs.shape[:-1], 1)).astype(np.float32)


def cartpole(noise: float) -> Act:
    """A linear controller that replaces a share `noise` of its actions by random ones."""
    weights = np.array([0.1, 0.3, 1.5, 0.8], np.float32)

    def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
        wanted = (obs[..., None, :] @ weights > 0).astype(np.int64)
        return np.where(rng.random(wanted.shape) < noise, rng.integers(2, size=wanted.shape), wanted)[..., 0]

    return act


BUILT_IN: dict[str, Callable[[float], Act]] = {"Pendulum-v1": pendulum, "CartPole-v1": cartpole}
"""For each task, a function that makes a policy of an amount of noise; without noise it is good."""
