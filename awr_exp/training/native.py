"""Gradient steps of small networks in C++ (native.cpp): the agents' own, up to rounding, on up to four threads."""

import ctypes
import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.agents.awr import AWR
from awr_exp.agents.weighted import WeightedAgent
from awr_exp.data.replay import Replay
from awr_exp.math.optimizers import Net, Optimizer, adam, momentum
from awr_exp.math.weights import Weighting, constant, exp_clip, indicator, normalized
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.networks.policy import Policy
from awr_exp.training.native_library import THREADS, library
from awr_exp.types import Batch, Metrics

LARGEST = 300_000
"""Parameters of a network up to which it and its gradients stay in the cache; beyond, nothing is gained by this."""
OPTIMIZERS: list[Optimizer] = [adam, momentum]
WEIGHTINGS: list[Weighting] = [exp_clip, normalized, indicator, constant]
LIKE_AWR = ("critic_update", "target", "value", "targets")
LIKE_ALL = ("actor_update", "descend", "normalize", "normalized", "noise")
"""Methods of an agent that the compiled steps stand for, and that must be AWR's or every agent's."""
VALUE, GAUSSIAN, CATEGORICAL = range(3)


class Problem(ctypes.Structure):
    """The struct of this name in native.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("sizes", "slots", "table", "obs_mean", "obs_std", "number", "value")),
        *((name, ctypes.c_void_p) for name in ("centre", "unit", "low", "high", "log_std")),
        *((name, ctypes.c_void_p) for name in ("theta", "mean", "square", "step", "alive", "average", "metrics")),
        *((name, ctypes.c_int64) for name in ("layers", "steps", "repeats", "batch", "stride", "width")),
        *((name, ctypes.c_int64) for name in ("next_obs", "action", "reward", "terminated")),
        *((name, ctypes.c_int64) for name in ("threads", "loss", "optimizer", "learns_std", "bootstraps")),
        *((name, ctypes.c_double) for name in ("obs_limit", "rate", "max_norm", "value_scale", "gamma", "penalty")),
        *((name, ctypes.c_double) for name in ("log_unit", "ema_decay")),
    ]


def fits(agent: Agent) -> bool:
    """Whether its steps are those that are compiled: of ReLU networks on the CPU, with the usual heads and losses."""
    critic = agent.networks.get("critic")
    learns = LIKE_AWR if critic else ()
    return (
        agent.networks.keys() <= {"actor", "critic"}
        and all(getattr(type(agent), name) is getattr(AWR, name) for name in (*LIKE_ALL, *learns))
        and agent.judged_by is not None
        and agent.judged_by <= {"target", "value"}
        and all(map(_is_usual, [agent.policy.network, *([critic.module] if critic else [])]))
        and all(network.theta.shape[1] <= LARGEST for network in agent.networks.values())
        and type(agent.policy) is Policy
        and _has_losses(agent.policy.head)
        and _bare(agent.optimizer) in OPTIMIZERS
        and agent.device.type == "cpu"
        and agent.dtype == torch.float32
        and all(entry.kept == "float32" for entry in agent.spec.entries)
    )


def _is_usual(network: Any) -> bool:
    return type(network) is MLP and network.activation == "relu" and not network.layer_norm


def _bare(part: Any) -> Any:
    """The function of a configuration's partial without arguments."""
    return part.func if isinstance(part, partial) and not part.args and not part.keywords else part


def _has_losses(head: heads.Head) -> bool:
    if type(head) is heads.Gaussian:
        return head.std != "state_dependent" and head.free is None
    return type(head) is heads.Categorical or (type(head) is heads.AnnealedGaussian and head.free is None)


def updates(
    agent: Any, experience: Any, rows: Tensor, noise: Tensor, target: Tensor | None = None
) -> Iterator[Metrics]:
    """`Agent.update` on the batches in rows [S, K, B], with their targets from target [K, N]; the metrics of each.

    All steps of the critic come first: what it learns depends neither on the actor nor on the weights.
    """
    slots, value = experience.places(rows), torch.zeros(rows.shape)
    own = torch.zeros(rows.shape) if target is None else _of_rows(target, rows)
    metrics: Metrics = {}
    if agent.value_iters:
        found = _critic(agent, experience, slots, own, agent.value_iters, value, bootstraps=target is None)
        metrics |= _critic_metrics(found)
    advantage = agent.advantage(Batch.of_columns(target=own, value=value))
    if _judges_at_once(agent):
        weight = agent.weights(advantage)
        metrics |= agent.health(advantage, weight)
    else:
        weight = torch.stack([agent.weights(one) for one in advantage])
        health = [agent.health(*one) for one in zip(advantage, weight, strict=True)]
        metrics |= {name: torch.stack([one[name] for one in health]) for name in health[0]}
    metrics |= _actor_metrics(_actor(agent, experience, slots, weight, agent.actor_iters))
    each = zip(*(column.unbind() for column in metrics.values()), strict=True)
    return (dict(zip(metrics, one, strict=True)) for one in each)


def _judges_at_once(agent: Any) -> bool:
    """Whether it weighs [S, K, B] advantages as S times [K, B]: it does by our weightings that learn nothing."""
    kind = type(agent)
    usual = (kind.weights, kind.health) in ((own.weights, own.health) for own in (Agent, WeightedAgent))
    return usual and (kind.weights is Agent.weights or _bare(agent.weighting) in WEIGHTINGS)


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


def _critic(
    agent: Any,
    experience: Any,
    slots: Tensor,
    target: Tensor,
    repeats: int = 1,
    values: Tensor | None = None,
    bootstraps: bool = False,
) -> Tensor:
    facts: list[dict[str, Any]] = [
        {"loss": VALUE, "value_scale": scale, "gamma": gamma, "bootstraps": bootstraps}
        for scale, gamma in zip(agent.value_scale.flatten().tolist(), agent.gamma.flatten().tolist(), strict=True)
    ]
    if values is not None:
        facts = [own | {"value": values[0, member]} for member, own in enumerate(facts)]
    lr = agent.critic_lr
    return _descend(agent, agent.critic, agent.critic.module, lr, experience, slots, target, repeats, facts)


def _actor(agent: Agent, experience: Any, slots: Tensor, weight: Tensor, repeats: int = 1) -> Tensor:
    facts = [_head_facts(agent.policy.head, own) for own in agent.actor.theta]
    if agent.actor.average is not None:
        decays = agent.ema_decay.flatten().tolist()
        facts = [own | {"average": agent.actor.average[k], "ema_decay": decays[k]} for k, own in enumerate(facts)]
    network: Any = agent.policy.network
    lr = agent.actor_lr
    return _descend(agent, agent.actor, network, lr, experience, slots, weight, repeats, facts)


def _head_facts(head: heads.Head, theta: Tensor) -> dict[str, Any]:
    """Fields of `Problem` that a head knows."""
    if isinstance(head, heads.Categorical):
        return {"loss": CATEGORICAL, "penalty": head.logit_penalty}
    assert isinstance(head, heads.Gaussian)
    learns = type(head) is heads.Gaussian and bool(head.shapes)
    if head.shapes:
        log_std = theta[-head.action_dim :].clamp(heads.LOG_STD_MIN, heads.LOG_STD_MAX)
    else:
        log_std = torch.full((head.action_dim,), math.log(float(head.std)))
    low, high = ((bound - head.centre) / head.scale for bound in (head.low, head.high))
    units = {"centre": head.centre, "unit": head.scale, "low": low, "high": high, "log_std": log_std}
    numbers = {"loss": GAUSSIAN, "learns_std": learns, "penalty": head.bound_penalty, "log_unit": head.log_scale}
    return {name: tensor.float().contiguous() for name, tensor in units.items()} | numbers


def _descend(
    agent: Agent,
    network: Net,
    mlp: MLP,
    lr: Tensor,
    experience: Any,
    slots: Tensor,
    number: Tensor,
    repeats: int,
    facts: Sequence[dict[str, Any]],
) -> Tensor:
    """Three metrics of the last of `repeats` steps on each batch in slots [S, K, B], [S, K, 3].

    facts: further fields of each member's `Problem`. Raises MemoryError.
    """
    compiled = library()
    assert compiled is not None
    batches, members, batch = slots.shape
    slots, number = slots.contiguous(), number.contiguous()
    metrics = torch.zeros(members, batches * repeats, 3, dtype=torch.float64)
    threads = THREADS[batch, str(mlp)]
    sizes, schema = torch.tensor([mlp.inputs, *mlp.hidden, mlp.outputs]), experience.schema
    shared = {
        "sizes": sizes,
        "layers": len(sizes) - 1,
        "steps": batches * repeats,
        "repeats": repeats,
        "batch": batch,
        "stride": members * batch,
        "optimizer": OPTIMIZERS.index(_bare(agent.optimizer)),
        "width": schema.width,
        # Without a column of their own, the next observations are those of the rows below.
        "next_obs": schema.columns.get("next_obs", schema.width),
        **{name: schema.columns[name] for name in ("action", "reward", "terminated")},
    }
    for member, own in enumerate(facts):
        fields = shared | own
        fields |= {name: tensor[0, member] for name, tensor in (("slots", slots), ("number", number))}
        fields |= {name: getattr(agent, name)[member] for name in ("obs_mean", "obs_std")}
        fields |= {"table": experience.table(member), "metrics": metrics[member]}
        fields |= {"obs_limit": float(agent.obs_limit[member]), "rate": float(lr[member])}
        fields |= {"max_norm": float(agent.max_grad_norm[member])}
        fields |= {name: tensor[member] for name, tensor in network.tensors().items() if name not in own}
        with threads.chosen(torch.get_num_threads(), batches * repeats) as fields["threads"]:
            problem = Problem(
                **{name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in fields.items()}
            )
            if compiled.descend(ctypes.byref(problem)):
                raise MemoryError("no memory is left for gradient steps")
    return metrics[:, repeats - 1 :: repeats].transpose(0, 1)
