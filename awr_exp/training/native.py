"""Gradient steps of small networks in C++ (native.cpp): the agents' own, up to rounding, on up to four threads."""

import ctypes
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.agents.awr import AWR
from awr_exp.agents.weighted import WeightedAgent
from awr_exp.data.replay import Replay
from awr_exp.math.members import about
from awr_exp.math.optimizers import Net, Optimizer, adam, momentum
from awr_exp.math.weights import Weighting, constant, exp_clip, indicator, normalized
from awr_exp.networks.policy import Policy, form
from awr_exp.training.means import Means
from awr_exp.training.native_library import THREADS, library
from awr_exp.types import Batch, Metrics

LARGEST = 300_000
"""Parameters of a network up to which it and its gradients stay in the cache; beyond, nothing is gained by this."""
LOSSES = ["value", "gaussian", "categorical"]
OPTIMIZERS: list[Optimizer] = [adam, momentum]
WEIGHTINGS: list[Weighting] = [exp_clip, normalized, indicator, constant]
LIKE_AWR = ("critic_update", "value_update", "target", "value", "targets")
LIKE_ALL = ("actor_update", "actor_loss", "annealed_lr", "descend", "normalize", "normalized", "noise")
"""Methods of an agent that the compiled steps stand for, and that must be AWR's or every agent's."""


class Problem(ctypes.Structure):
    """The struct of this name in native.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("sizes", "places", "next_places", "table")),
        *((name, ctypes.c_void_p) for name in ("obs_mean", "obs_std", "number", "value")),
        *((name, ctypes.c_void_p) for name in ("centre", "unit", "low", "high", "log_std")),
        *((name, ctypes.c_void_p) for name in ("theta", "mean", "square", "step", "alive", "average", "metrics")),
        *((name, ctypes.c_int64) for name in ("layers", "steps", "repeats", "batch", "stride", "width")),
        *((name, ctypes.c_int64) for name in ("action", "reward", "terminated")),
        *((name, ctypes.c_int64) for name in ("threads", "loss", "optimizer", "learns_std", "bootstraps")),
        *((name, ctypes.c_double) for name in ("obs_limit", "rate", "max_norm", "value_scale", "gamma", "penalty")),
        *((name, ctypes.c_double) for name in ("log_unit", "ema_decay", "course", "reward_scale", "reward_shift")),
    ]

    @classmethod
    def of(cls, member: int, fields: dict[str, Any]) -> "Problem":
        """The problem of one member: it gets its number, or the place of its row, of each tensor [K, ...]."""

        def own(name: str, value: Any) -> Any:
            if not isinstance(value, Tensor | list):
                return value
            return value[member].data_ptr() if name in POINTERS else float(value[member])

        return cls(**{name: own(name, value) for name, value in fields.items()})


POINTERS = {name for name, kind, *_ in Problem._fields_ if kind is ctypes.c_void_p}


def fits(agent: Agent) -> bool:
    """Whether its steps are those that are compiled: on the CPU, with networks and heads that have a form for this."""
    critic = agent.networks.get("critic")
    learns = LIKE_AWR if critic else ()
    return (
        agent.networks.keys() <= {"actor", "critic"}
        and all(getattr(type(agent), name) is getattr(AWR, name) for name in (*LIKE_ALL, *learns))
        and agent.judged_by is not None
        and agent.judged_by <= {"target", "value"}
        and type(agent.policy) is Policy
        and form(agent.policy.network, "native") is not None
        and _of_head(agent) is not None
        and (critic is None or form(critic.module, "native") is not None)
        and all(network.theta.shape[1] <= LARGEST for network in agent.networks.values())
        and _bare(agent.optimizer) in OPTIMIZERS
        and agent.device.type == "cpu"
        and agent.dtype == torch.float32
        and all(entry.kept == "float32" and len(entry.shape) < 2 for entry in agent.spec.entries)
    )


def _of_head(agent: Agent) -> dict[str, Any] | None:
    """Fields of `Problem` that a head knows."""
    return form(agent.policy.head, "native", agent.policy.parts(agent.actor.theta)[1])


def _bare(part: Any) -> Any:
    """The function of a configuration's partial without arguments."""
    return part.func if isinstance(part, partial) and not part.args and not part.keywords else part


def updates(
    agent: Any, experience: Any, means: Means, rows: Tensor, noise: Tensor, target: Tensor | None = None
) -> None:
    """`Agent.update` on the batches in rows [S, K, B], with their targets from target [K, N]; means: of its metrics.

    All steps of the critic come first: what it learns depends neither on the actor nor on the weights.
    """
    value = torch.zeros(rows.shape)
    own = torch.zeros(rows.shape) if target is None else _of_rows(target, rows)
    metrics: Metrics = {}
    if agent.value_iters:
        found = _critic(agent, experience, rows, own, agent.value_iters, value=value[0], bootstraps=target is None)
        metrics |= _critic_metrics(found)
    advantage = agent.advantage(Batch.of_columns(target=own, value=value))
    if _judges_at_once(agent):
        weight = agent.weights(advantage)
        metrics |= agent.health(advantage, weight)
    else:
        weight = torch.stack([agent.weights(one) for one in advantage])
        health = [agent.health(*one) for one in zip(advantage, weight, strict=True)]
        metrics |= {name: torch.stack([one[name] for one in health]) for name in health[0]}
    means.add_each(metrics | _actor_metrics(_actor(agent, experience, rows, weight, agent.actor_iters)))


def _judges_at_once(agent: Any) -> bool:
    """Whether it weighs [S, K, B] advantages as S times [K, B]: it does by our weightings."""
    kind = type(agent)
    if kind.weights is Agent.weights:
        return kind.health is Agent.health
    usual = (kind.weights, kind.health) == (WeightedAgent.weights, WeightedAgent.health)
    return usual and (_bare(agent.weighting) in WEIGHTINGS or about(agent.weighting).several)


def critic_steps(agent: Any, replay: Replay, slots: Tensor, noise: Tensor, target: Tensor) -> Metrics:
    """A step of `AWR.critic_update` for each of slots [S, K, B] of the replay; the sums of their metrics, [K] each.

    noise: of no use to the agents that there is code for.
    """
    return _critic_metrics(_critic(agent, replay, slots, _of_rows(target, slots)).sum(0))


def actor_steps(agent: Any, replay: Replay, slots: Tensor, noise: Tensor, weight: Tensor) -> Metrics:
    """A step of `Agent.actor_update` for each of slots [S, K, B], with weights [K, N]; sums as `critic_steps`."""
    return _actor_metrics(_actor(agent, replay, slots, _of_rows(weight, slots)).sum(0))


def _of_rows(column: Tensor, rows: Tensor) -> Tensor:
    """[S, K, B] of a column [K, N]."""
    return torch.stack([column.gather(1, one) for one in rows]).float()


def _critic_metrics(found: Tensor) -> Metrics:
    return dict(zip(("value_loss", "explained_variance", "mean_value"), found.float().unbind(-1), strict=True))


def _actor_metrics(found: Tensor) -> Metrics:
    return dict(zip(("actor_loss", "entropy"), found[..., :2].float().unbind(-1), strict=True))


def _critic(agent: Any, experience: Any, slots: Tensor, target: Tensor, repeats: int = 1, **further: Any) -> Tensor:
    critic = agent.critic
    own = {"loss": "value", "value_scale": agent.value_scale, "gamma": agent.gamma}
    own |= {"rate": agent.critic_lr, "course": math.inf}
    return _descend(agent, critic, critic.module, experience, slots, target, repeats, own | further)


def _actor(agent: Agent, experience: Any, slots: Tensor, weight: Tensor, repeats: int = 1) -> Tensor:
    head = _of_head(agent)
    assert head is not None
    # Some of its tensors are those of all members.
    of_head = {k: v.expand(agent.members, -1) if isinstance(v, Tensor) else v for k, v in head.items()}
    own = {"rate": agent.actor_lr, "course": agent.actor_steps, "ema_decay": agent.ema_decay}
    return _descend(agent, agent.actor, agent.policy.network, experience, slots, weight, repeats, own | of_head)


def _descend(
    agent: Agent,
    network: Net,
    module: Any,
    experience: Any,
    slots: Tensor,
    number: Tensor,
    repeats: int,
    fields: dict[str, Any],
) -> Tensor:
    """Three metrics of the last of `repeats` steps on each batch in slots, or rows of a data set, [S, K, B]; [S, K, 3].

    number: of each slot, its target or weight; fields: what else the `Problem` of this network has. Raises MemoryError.
    """
    compiled, widths = library(), form(module, "native")
    assert compiled is not None
    assert widths is not None
    batches, members, batch = slots.shape
    places = experience.places(slots).contiguous()
    metrics = torch.zeros(members, batches * repeats, 3, dtype=torch.float64)
    fields |= network.tensors() | {
        "sizes": torch.tensor(widths).expand(members, -1),
        "places": places[0],
        "next_places": experience.next_places(places)[0] if fields.get("bootstraps") else None,
        "number": number.contiguous()[0],
        "metrics": metrics,
        "layers": len(widths) - 1,
        "steps": batches * repeats,
        "repeats": repeats,
        "batch": batch,
        "stride": members * batch,
        "optimizer": OPTIMIZERS.index(_bare(agent.optimizer)),
        "loss": LOSSES.index(fields["loss"]),
        "max_norm": agent.max_grad_norm,
        **{f"obs_{name}": tensor for name, tensor in agent.normalizer.tensors().items()},
        **_table(experience, members),
    }
    threads = THREADS[batch, tuple(widths)]
    for member in range(members):
        with threads.chosen(torch.get_num_threads(), batches * repeats) as fields["threads"]:
            if compiled.descend(ctypes.byref(Problem.of(member, fields))):
                raise MemoryError("no memory is left for gradient steps")
    return metrics[:, repeats - 1 :: repeats].transpose(0, 1)


def _table(experience: Any, members: int) -> dict[str, Any]:
    """Fields of `Problem` that say where transitions lie, and in which unit rewards are."""
    schema = experience.schema
    columns: dict[str, Any] = {name: schema.columns[name] for name in ("action", "reward", "terminated")}
    columns |= {"reward_scale": experience.rewards.scale, "reward_shift": experience.rewards.shift}
    return columns | {"table": [experience.table] * members, "width": schema.width}
