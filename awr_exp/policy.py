"""A trained policy as a function of NumPy observations: `awr_exp.load(run_folder)`."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import ArrayLike, NDArray

from awr_exp.agents.agent import AVERAGE
from awr_exp.config import check_trusted
from awr_exp.errors import UserError
from awr_exp.math.observations import normalize
from awr_exp.networks import acting
from awr_exp.networks.policy import Policy
from awr_exp.seeding import generator
from awr_exp.training import checkpoint
from awr_exp.types import Spec

Facts = dict[str, Any]

OF_LEARNING = {
    "optimizer",
    "init",
    "input_scale",
    "output_init",
    "output_scale",
    "std",
    "std_end",
    "bound_penalty",
    "logit_penalty",
}
"""Facts that may change while a policy learns, for its state goes on meaning the same; each kind of std has a shape."""


def policy_facts(spec: Spec, agent: dict[str, Any], reward_scale: float = 1.0) -> Facts:
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
    return {"spec": asdict(spec), "network": agent["network"], "head": agent["head"], **known}


def difference(before: Facts, now: Facts) -> str | None:
    """The first of policy_facts in which a checkpoint's state would mean something else now, and how; None if none."""
    old, new = dict(_settings(before)), dict(_settings(now))
    return next((f"{name}={old[name]}, not {new[name]}" for name in new if old.get(name, new[name]) != new[name]), None)


def _settings(facts: Facts, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """By dotted name."""
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}.") if name not in OF_LEARNING else ()
        elif name not in OF_LEARNING:
            # JSON has no tuples.
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def load(path: str | Path, which: str = "best", seed: int = 0, trust: Iterable[str] = ()) -> "TrainedPolicy":
    """The policy of a run folder or of one checkpoint file.

    which: "best" by evaluation (the latest if nothing was evaluated) or "latest"; seed: of sampled actions;
    trust: dotted names of own network or head classes that the checkpoint may call. Raises UserError if there
    is no readable checkpoint, or if it asks for code that is neither ours nor trusted.
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
    state, facts = found
    for part in ("network", "head"):
        check_trusted(facts[part], path, trust)
    spec = Spec.from_json(facts["spec"])
    parts = {part: instantiate(facts[part], _convert_="all") for part in ("network", "head")}
    return TrainedPolicy(spec, Policy(spec, **parts), state, seed)


class TrainedPolicy:
    """Maps observations [obs_dim] or [B, obs_dim] in the data's units to actions inside the bounds."""

    def __init__(self, spec: Spec, policy: Policy, state: checkpoint.State, seed: int) -> None:
        self.spec, self.policy = spec, policy
        self.theta = state.get(AVERAGE, state["actor.theta"])
        self.normalizer = [state[f"normalizer.{name}"] for name in ("mean", "std", "limit")]
        self.generators = [generator(seed, "policy")]

    def player(self, sample: bool) -> Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]:
        """From one observation and a generator to one action, the quickest way; sample: drawn, not the mode.

        That of a Gaussian may be out of bounds.
        """
        actor = acting.actor(self.policy, self.theta, *self.normalizer)

        def by_torch(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
            if sample:
                self.generators = [generator(int(rng.integers(2**32)), "policy")]
            return self._act(obs, not sample)

        if actor is None:
            return by_torch

        def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
            return actor(obs[None, None], actor.draw(rng, 1)[None] if sample else None)[0, 0]

        return act

    def __call__(self, obs: ArrayLike, deterministic: bool = True) -> NDArray[Any]:
        """Actions [action_dim] or [B, action_dim]; whole numbers, [] or [B], for discrete ones.

        Raises UserError for observations of another size.
        """
        action = self._act(obs, deterministic)
        if self.spec.discrete:
            return action
        low, high = np.array([self.spec.action_low, self.spec.action_high], action.dtype)
        return np.clip(action, low, high)

    @torch.no_grad()
    def _act(self, obs: ArrayLike, deterministic: bool) -> NDArray[Any]:
        """As when called, but actions may be out of bounds."""
        array = np.asarray(obs, dtype=np.float32)
        if array.ndim not in (1, 2) or array.shape[-1] != self.spec.obs_dim:
            raise UserError(f"observations of shape {array.shape}; this policy takes (…, {self.spec.obs_dim})")
        rows = torch.as_tensor(array).reshape(1, -1, self.spec.obs_dim)
        batch = normalize(rows, *(each.unsqueeze(1) for each in self.normalizer))
        if deterministic:
            action = self.policy.mode(self.theta, batch)
        else:
            action = self.policy.sample(self.theta, batch, self.generators)
        return action[0].numpy() if array.ndim == 2 else action[0, 0].numpy()
