"""What an agent asks of its parts, tried before it is built: what is wrong with one's own is said by its contract."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from awr_exp.errors import UserError, named
from awr_exp.math.members import started
from awr_exp.networks.head import Head
from awr_exp.networks.mlp import of_task
from awr_exp.types import Spec

CONTRACTS = {
    "network": "a class (inputs, outputs, ...), named with _partial_: true, that has shapes, start(generators) and a "
    "call (theta, x), a pure function of its parameters",
    "head": "a class (spec), named with _partial_: true, with the methods of awr_exp.networks.head.Head",
    "advantage": "a callable (reward, discount, next_value, last, longest) to targets [K, N], with a property one_step",
    "weighting": "a function (advantage [K, B], beta [K, 1], max_weight [K, 1]) to weights [K, B], named with "
    "_partial_: true",
    "optimizer": "a function (parameters, grad, scale, rate) that takes a step in place, named with _partial_: true",
    "agent": "a class that inherits from awr_exp.agents.agent.Agent",
    "dataset": "a function (device, ...) to awr_exp.data.transitions.Transitions",
    "env": "a function (data, spec) to one that makes an environment, where env=gym env.id=my_module:MyEnv-v0 is not "
    "enough",
    "callback": "a class that inherits from awr_exp.training.callbacks.Callback",
    "evaluate": "a class that inherits from awr_exp.training.callbacks.Callback",
    "holdout": "awr_exp.training.heldout.HeldOut, or a class that inherits from it",
    "logger": "a class (folder, config, update, run_id) with the methods of awr_exp.training.logger.Logger, named "
    "with _partial_: true",
}
SIZE = 8
"""Rows of what parts are tried on."""


def check(node: Mapping[str, Any], parts: Mapping[str, Any], spec: Spec) -> None:
    """Raises UserError that says the contract of the first part that breaks it; node: the agent's configuration.

    A part that fails for another reason is left to itself.
    """
    column, row = torch.ones(1, 1), torch.linspace(-1, 1, SIZE).unsqueeze(0)
    ends = torch.zeros(1, SIZE, dtype=torch.bool)
    given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
        "network": ((), {"inputs": spec.obs_dim, "outputs": 1}),
        "head": ((spec,), {}),
        "advantage": ((row, 0.9 * torch.ones_like(row), row, ends), {"longest": SIZE}),
        "weighting": ((row, column, 20 * column), {}),
        "optimizer": ((None,) * 4, {}),
    }
    for name in CONTRACTS.keys() & parts.keys():
        positional, keywords = given[name]
        part = of_task(parts[name], spec) if name == "network" else started(parts[name], column)
        if reason := _wrong(name, part, positional, keywords):
            raise broken(name, node[name], reason)


def check_made(name: str, node: Any, made: Any, kind: Any) -> None:
    """Raises UserError that says the contract, if what a part has made is of another kind."""
    if not isinstance(made, kind):
        raise broken(name, node, f"what it makes is of the type {type(made).__name__}")


def broken(name: str, node: Any, reason: str) -> UserError:
    """The error that says which contract a part breaks."""
    target = node.get("_target_", node) if isinstance(node, Mapping) else node
    return UserError(f"{name}={target}: {reason}; it must be {CONTRACTS[name]}: see docs/extending.md")


def _wrong(name: str, part: Any, positional: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
    """What is wrong with a part that is called so, or with what it then gives back."""
    if isinstance(part, torch.nn.Module):
        return "it is an nn.Module"
    if not callable(part):
        return f"it is a {type(part).__name__}, which cannot be called"
    try:
        inspect.signature(part).bind(*positional, **keywords)
    except TypeError as error:
        return f"it cannot be called so ({error})"
    except ValueError:  # a builtin, whose signature nobody knows
        pass
    if name == "advantage" and not hasattr(part, "one_step"):
        return "it has no one_step"
    if name == "optimizer":
        return None
    try:
        made = part(*positional, **keywords)
    except UserError:
        raise
    except TypeError as error:
        return f"it fails: {named(error)}"
    except Exception:  # of one's own for other batches than these
        return None
    if name in ("weighting", "advantage"):
        wanted = tuple(positional[0].shape)
        found = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
        return None if found == wanted else f"from rows of the shape {wanted} it makes {found}"
    if isinstance(made, torch.nn.Module):
        return "it makes an nn.Module"
    methods = ("shapes", "start", "__call__") if name == "network" else _methods(Head)
    lacks = [method for method in methods if not hasattr(made, method)]
    return f"what it makes has no {', '.join(lacks)}" if lacks else None


def _methods(protocol: type) -> list[str]:
    own = [name for name in vars(protocol) if not name.startswith("_")]
    return list(dict.fromkeys([*protocol.__annotations__, *own]))
