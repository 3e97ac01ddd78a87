"""What a checkpoint says of what its state means, and whether that is what it would mean now."""

import json
from dataclasses import asdict
from typing import Any

from awr_exp.results import leaves
from awr_exp.types import OWN_UNIT, RewardUnit, Spec

Metadata = dict[str, Any]

OF_LEARNING = {
    "optimizer", "init", "input_scale", "output_init", "output_scale", "std", "std_end",
    "bound_penalty", "logit_penalty", "steps", "candidates", "best_of", "kind", "history",
}  # fmt: skip
"""Metadata that may change while a policy learns: its state goes on meaning the same. Each kind of std has a shape,
and so has an observation of any `Spec.history`."""


def policy_metadata(spec: Spec, agent: dict[str, Any], unit: RewardUnit = OWN_UNIT) -> Metadata:
    """What a checkpoint must know of what its state means: the task's shapes, the networks, and what is normalised.

    With the first two it can be loaded without the run's folder. optimizer: whose moments those are; critic_layer_norm,
    in which its critic may differ from its policy; gamma, where its critic is in units of 1 / (1 - gamma); reward_scale
    and reward_shift, of what it learns values of.
    """
    others = ("optimizer", "normalize_observations", "normalize_values", "critic_layer_norm")
    known = {name: agent[name] for name in others if name in agent}
    if agent.get("normalize_values"):
        known["gamma"] = agent["gamma"]
    if "gamma" in agent:
        known |= {"reward_scale": float(unit.scale), "reward_shift": float(unit.shift)}
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
