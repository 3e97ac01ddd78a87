"""A trained policy as a function of NumPy observations: `awr_exp.load(run_folder)`."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from numpy.typing import NDArray

from awr_exp import settings
from awr_exp.agents.agent import AVERAGE
from awr_exp.config import check_trusted
from awr_exp.errors import UserError, first_line
from awr_exp.layout import described
from awr_exp.math.observations import normalize
from awr_exp.networks.mlp import size
from awr_exp.networks.policy import Policy
from awr_exp.results import leaves
from awr_exp.seeding import normal, numpy_generator
from awr_exp.surroundings import usual
from awr_exp.training import checkpoint
from awr_exp.types import Spec

Metadata = dict[str, Any]

OF_LEARNING = {
    "optimizer", "init", "input_scale", "output_init", "output_scale", "std", "std_end",
    "bound_penalty", "logit_penalty", "steps", "candidates",
}  # fmt: skip
"""Metadata that may change while a policy learns: its state goes on meaning the same. Each kind of std has a shape."""


def policy_metadata(spec: Spec, agent: dict[str, Any], reward_scale: float = 1.0) -> Metadata:
    """What a checkpoint must know of what its state means: the task's shapes, the networks, and what is normalised.

    With the first two it can be loaded without the run's folder. optimizer: whose moments those are; gamma, where its
    critic is in units of 1 / (1 - gamma); reward_scale, of what it learns values of.
    """
    others = ("optimizer", "normalize_observations", "normalize_values")
    known = {name: agent[name] for name in others if name in agent}
    if agent.get("normalize_values"):
        known["gamma"] = agent["gamma"]
    if "gamma" in agent:
        known["reward_scale"] = float(reward_scale)
    # As it will come back: JSON has no tuples.
    return {"spec": json.loads(json.dumps(asdict(spec))), "network": agent["network"], "head": agent["head"], **known}


def difference(before: Metadata, now: Metadata) -> str | None:
    """The first of policy_metadata by which a checkpoint's state would mean something else now, and how, or None."""
    old, new = _settings(before), _settings(now)
    return next((f"{name}={old[name]}, not {new[name]}" for name in new if old.get(name, new[name]) != new[name]), None)


def _settings(metadata: Metadata) -> dict[str, Any]:
    """The settings that say what a checkpoint's state means, by dotted name."""
    return {
        # JSON has no tuples.
        name: list(value) if isinstance(value, tuple) else value
        for name, value in leaves(metadata).items()
        if OF_LEARNING.isdisjoint(name.split("."))
    }


@usual()
def load(path: str | Path, which: str = "best", seed: int = 0, trust: Iterable[str] = ()) -> "TrainedPolicy":
    """The trained policy of a run folder or of one checkpoint file, as a function of observations.

        policy = awr_exp.load("outputs/runs/<date>/<time>")
        action = policy(obs)

    Observations and actions are those of the environment itself; see `TrainedPolicy`.
    which: "best" by evaluation (the latest if nothing was evaluated) or "latest"; seed: of sampled actions, for
    `policy(obs, deterministic=False)`; trust: dotted names of own network or head classes that the checkpoint may
    call. Raises UserError if there is no readable checkpoint, or if it asks for code that is neither ours nor trusted.
    """
    path = Path(path)
    if which not in ("best", "latest"):
        raise UserError(f"which is '{which}'; it must be best or latest")
    if path.is_file():
        found: tuple[checkpoint.State, dict[str, Any]] | None = checkpoint.read(path)
    else:
        found = checkpoint.best(path) if which == "best" else checkpoint.latest(path)
    if found is None:
        raise UserError(f"{path} is neither the folder of a run with a checkpoint nor a checkpoint file")
    state, metadata = found
    if missing := [name for name in ("spec", "network", "head") if name not in metadata]:
        raise UserError(f"{path} is no checkpoint of a policy: it does not say its {', '.join(missing)}")
    nodes = {part: metadata[part] for part in ("network", "head")}
    check_trusted(nodes, path, trust)
    try:
        settings.check_ranges(nodes)
        spec = Spec.from_json(metadata["spec"])
        policy = Policy(spec, **{part: instantiate(node, _convert_="all") for part, node in nodes.items()})
        check_tensors(spec, policy, state)
    except (UserError, InstantiationException, TypeError, ValueError) as error:
        raise UserError(f"the policy of {path} cannot be built: {first_line(error)}") from error
    return TrainedPolicy(spec, policy, state, seed, f"{path}, update {metadata.get('update')}")


def check_tensors(spec: Spec, policy: Policy, state: checkpoint.State) -> None:
    """Raises UserError where the state of a checkpoint is not that of such a policy."""
    shapes = {"actor.theta": (1, size(policy.shapes))}
    shapes |= {AVERAGE: shapes["actor.theta"]} if AVERAGE in state else {}
    shapes |= {"normalizer.mean": (1, spec.obs_dim), "normalizer.std": (1, spec.obs_dim), "normalizer.limit": (1, 1)}
    for name, shape in shapes.items():
        if name not in state or state[name].shape != shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise UserError(f"its '{name}' should be {shape}, found {found}")
        if state[name].dtype not in (torch.float32, torch.float64) or state[name].isnan().any():
            raise UserError(f"its '{name}' holds what are no numbers")


class TrainedPolicy:
    """Maps observations as the environment gives them to actions as it takes them.

    source: where it was learnt, for people. It can be copied, pickled and shared by threads; a copy goes on drawing
    the random numbers that the original would.
    """

    def __init__(self, spec: Spec, policy: Policy, state: checkpoint.State, seed: int, source: str = "") -> None:
        self.spec, self.policy, self.source = spec, policy, source
        self.theta = state.get(AVERAGE, state["actor.theta"])
        self.normalizer = [state[f"normalizer.{name}"] for name in ("mean", "std", "limit")]
        self.rng = numpy_generator(seed, "policy")

    def __repr__(self) -> str:
        return f"TrainedPolicy({self.source or 'of an agent'}: {self.spec})"

    @usual()
    def act_on_one(self, sample: bool) -> Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]:
        """From one observation and a generator to one action, the quickest way; sample: drawn, not the mode.

        That of a Gaussian may be out of bounds.
        """
        quick, width = self.policy.numpy(self.theta, *self.normalizer), self.policy.head.noise

        def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
            noise = normal(rng, 1, width) if sample else None
            if quick is None:
                return self._act(obs, noise)
            return quick(obs[None, None], None if noise is None else noise[None])[0, 0]

        return act

    def __call__(self, obs: Any, deterministic: bool = True) -> NDArray[Any]:
        """Actions [..., action_dim] inside the bounds; of discrete ones the environment's own numbers, [...].

        obs: one observation as `env.step` returns it, or a batch: an array or list [..., obs_dim]; of an environment
        with Dicts or Tuples those, of single values or of whole batches (as a vectorised environment gives them), a
        list of Dicts or tuples, or the flat vectors that they become, [..., obs_dim]. deterministic: the mode instead
        of a sample. Raises UserError for anything else, and for numbers that are not finite.
        """
        flat = self._flat(obs)
        rows = math.prod(flat.shape[:-1])
        action = self._act(flat, None if deterministic else normal(self.rng, rows, self.policy.head.noise))
        if self.spec.discrete:
            return action + self.spec.action_start
        return np.clip(action, *self._bounds())

    def _bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The bounds in float32, rounded inward: the environment's own may be of float64."""
        exact = np.array([self.spec.action_low, self.spec.action_high])
        low, high = exact.astype(np.float32)
        inf = np.float32(np.inf)
        return (
            np.where(low < exact[0], np.nextafter(low, inf), low),
            np.where(high > exact[1], np.nextafter(high, -inf), high),
        )

    def _flat(self, obs: Any) -> NDArray[np.float32]:
        """[..., obs_dim]. Raises UserError."""
        try:
            with np.errstate(over="ignore"):
                flat = self._read(obs)
            if not np.isfinite(flat).all():
                raise ValueError("it holds a number that is not finite, or none that float32 has")
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            parts = f", or {described(self.spec.observation)}" if self.spec.observation else ""
            raise UserError(
                f"this observation does not fit: {first_line(error)}; the policy takes (..., {self.spec.obs_dim}) "
                f"numbers{parts}"
            ) from None
        return flat

    def _read(self, obs: Any) -> NDArray[np.float32]:
        if isinstance(obs, list) and obs and all(isinstance(one, Mapping | tuple) for one in obs):
            return np.stack([self.spec.flatten(one) for one in obs])
        try:
            return self.spec.flatten(obs)
        except ValueError:
            flat = None if isinstance(obs, Mapping | tuple) else np.asarray(obs, np.float32)
            if flat is None or flat.ndim == 0 or flat.shape[-1] != self.spec.obs_dim:
                raise
            return flat

    @torch.no_grad()
    def _act(self, obs: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[Any]:
        """Actions for flat observations, which may be out of bounds and count from 0; noise: [rows, n], or None."""
        rows = torch.as_tensor(obs, dtype=self.theta.dtype, device="cpu")
        rows = rows.reshape(1, math.prod(obs.shape[:-1]), self.spec.obs_dim)
        batch = normalize(rows, *(each.unsqueeze(1) for each in self.normalizer))
        drawn = None if noise is None else torch.as_tensor(noise[None], dtype=self.theta.dtype, device="cpu")
        action = self.policy.act(self.theta, batch, drawn)
        return action[0].unflatten(0, obs.shape[:-1]).numpy() if obs.ndim > 1 else action[0, 0].numpy()
