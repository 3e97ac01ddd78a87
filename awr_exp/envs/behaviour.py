"""Built-in behaviour policies in NumPy, from random to good: observations [..., obs_dim] to actions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from awr_exp.envs import dark_passages as passages
from awr_exp.envs import pixel_grid as pixels
from awr_exp.envs import point_maze as maze
from awr_exp.envs.episode import Act
from awr_exp.envs.two_ways import SPREAD, STEP

TORQUE = 2.0
"""Largest torque of Pendulum-v1."""

AWAY = 5
"""Steps at the least from the goal of PointMaze-v0 to where those walk who do not mind it."""


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


def two_ways(noise: float) -> Act:
    """Passes the rock on the side it is on, or where it begins on either one; normal noise of `noise`."""

    def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        x, y = np.moveaxis(obs, -1, 0)[..., None]
        side = np.where(np.abs(y) > SPREAD, np.sign(y), rng.choice([-1.0, 1.0], x.shape))
        # The next step ends below a roof over the rock.
        roof = np.clip(1 - np.abs(x + STEP), 0, 0.8)
        return np.clip((side * roof - y) / STEP + noise * rng.standard_normal(x.shape), -1, 1).astype(np.float32)

    return act


def two_ways_random() -> Act:
    """Uniform speeds."""
    return lambda obs, rng: rng.uniform(-1, 1, (*obs.shape[:-1], 1)).astype(np.float32)


def pixel_grid(noise: float) -> Act:
    """Walks to the goal along a row or a column, and replaces a share `noise` of its actions by random ones."""

    def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
        image = obs.reshape(*obs.shape[:-1], *pixels.OBSERVATION.shape)
        missing = pixels.places(image, pixels.GOAL) - pixels.places(image, pixels.WALKER)
        axis = np.where(rng.random(missing.shape[:-1]) * np.abs(missing).sum(-1) < np.abs(missing[..., 0]), 0, 1)
        forward = np.take_along_axis(missing, axis[..., None], -1)[..., 0] > 0
        chance = rng.random(axis.shape) < noise
        return np.where(chance, rng.integers(len(pixels.MOVES), size=axis.shape), 2 * axis + forward)

    return act


def dark_passages(noise: float, wet: float = 0.0) -> Act:
    """Chooses in the light a way, the wet one with the chance `wet`, and remembers in the dark where it is.

    It replaces a share `noise` of its actions by random ones.
    """
    way, done = np.array(0), np.array(0)

    def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
        nonlocal way, done
        passage, dark = np.divmod(obs.argmax(-1), 2)
        way = np.where(dark, way, rng.random(dark.shape) < wet)
        done = np.where(dark, done, 0)
        chance = rng.random(dark.shape) < noise
        action = np.where(chance, rng.integers(3, size=dark.shape), passages.WAYS[passage, way, done])
        # It knows the passages, and so whether it ran against a wall.
        _, way, done, _ = passages.moved(passage, way, done, action)
        return action

    return act


def point_maze(noise: float) -> Act:
    """Walks to the goal on a shortest way, and replaces a share `noise` of its actions by random ones."""

    def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        goal, place = obs[..., 2:4], obs[..., 4:]
        after = maze.moved(np.repeat(place[..., None, :], len(maze.MOVES), -2), maze.MOVES)
        left = maze.SHORTEST[maze.cells(after), maze.cells(goal)[..., None]]
        wanted = maze.MOVES[left.argmin(-1)]
        chance = rng.random((*wanted.shape[:-1], 1)) < noise
        return np.where(chance, rng.uniform(-1, 1, wanted.shape), wanted).astype(np.float32)

    return act


def point_maze_wanderer(noise: float) -> Act:
    """Walks from one place of its own choice to another, as `point_maze` does, all of which are away from the goal."""
    walk, own = point_maze(noise), np.zeros(2)

    def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        nonlocal own
        goal, place = obs[2:4], obs[4:]
        away = maze.SHORTEST[maze.cells(goal)] >= AWAY
        if not own.any() or not away[maze.cells(own)] or maze.reached(place, own):
            own = rng.choice(maze.CELLS[away]) + 0.5
        return walk(np.concatenate([place, own, place]), rng)

    return act


BUILT_IN: dict[str, Callable[[float], Act]] = {
    "Pendulum-v1": pendulum,
    "CartPole-v1": cartpole,
    "awr_exp.envs.two_ways:TwoWays-v0": two_ways,
    "awr_exp.envs.pixel_grid:PixelGrid-v0": pixel_grid,
    "awr_exp.envs.dark_passages:DarkPassages-v0": dark_passages,
    "awr_exp.envs.point_maze:PointMaze-v0": point_maze,
}
"""For each task, a function that makes a policy of an amount of noise; without noise it is good."""
