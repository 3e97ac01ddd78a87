"""Gradient steps of small networks in C++ (native.cpp): the agents' own, up to rounding, on up to four threads.

They are compiled for this processor on first use, which takes a few seconds, and kept in the user's cache folder.
"""

import ctypes
import hashlib
import logging
import math
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from awr_exp.agents.agent import Agent
from awr_exp.agents.awr import AWR
from awr_exp.data.replay import Replay
from awr_exp.machine import is_own, own_cache
from awr_exp.math.optimizers import Net, Optimizer, adam, momentum
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP
from awr_exp.networks.policy import Policy
from awr_exp.training.accelerate import compiler
from awr_exp.training.progress import compiling
from awr_exp.types import Metrics

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = [
    "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native",
    *("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread"),
]
LARGEST = 300_000
"""Parameters of a network up to which it and its gradients stay in the cache; beyond, nothing is gained by this."""
OPTIMIZERS: list[Optimizer] = [adam, momentum]
STEPS = ("critic_update", "actor_update", "target", "descend", "value", "normalize", "normalized")
"""Of an agent: what the compiled steps stand for, and what must be as it is in AWR."""
VALUE, GAUSSIAN, CATEGORICAL = range(3)


class Problem(ctypes.Structure):
    """As in native.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("sizes", "slots", "ring", "obs_mean", "obs_std", "number")),
        *((name, ctypes.c_void_p) for name in ("centre", "unit", "low", "high", "log_std")),
        *((name, ctypes.c_void_p) for name in ("theta", "mean", "square", "step", "alive", "average", "metrics")),
        *((name, ctypes.c_int64) for name in ("layers", "steps", "batch", "slot_stride", "ring_width")),
        *((name, ctypes.c_int64) for name in ("obs", "action", "threads", "loss", "optimizer", "learns_std")),
        *((name, ctypes.c_double) for name in ("obs_limit", "rate", "max_norm", "value_scale", "penalty")),
        *((name, ctypes.c_double) for name in ("log_unit", "ema_decay")),
    ]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled steps, or None where there is no compiler, or where it fails, with a line that says why."""
    cxx = compiler()
    if cxx is None:
        return None
    try:
        if kept := own_cache("native"):
            with suppress(OSError):  # it is full, or what lies there may not be run
                return _loaded(cxx, kept)
        with tempfile.TemporaryDirectory() as place:
            return _loaded(cxx, Path(place))
    except OSError as error:
        said = str(error)
    except subprocess.CalledProcessError as error:
        # Not the line where it is, but what is wrong.
        said = next((line for line in error.stderr.splitlines() if "error" in line), str(error))
    log.warning("gradient steps could not be compiled, going on without: %s", said)
    return None


def _loaded(cxx: str, folder: Path) -> ctypes.CDLL:
    """The library that the folder has, or a new one. Raises OSError or CalledProcessError."""

    def run(*command: str) -> str:
        return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout

    facts = [SOURCE.read_text(), *FLAGS, run(cxx, "--version"), platform.machine(), *_processor()]
    name = _hash(repr(facts).encode())
    for library in folder.glob(f"{name}-*.so"):
        # A disk may have lost half of it, and to load that may end the process.
        if is_own(library) and library.stem == f"{name}-{_hash(library.read_bytes())}":
            return ctypes.CDLL(str(library))
        library.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / "made.so"
        with compiling("a few seconds"):
            run(cxx, *FLAGS, "-o", str(made), str(SOURCE))
        made.chmod(0o700)
        # At once: two processes may be at it.
        library = made.replace(folder / f"{name}-{_hash(made.read_bytes())}.so")
    return ctypes.CDLL(str(library))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _processor() -> list[str]:
    """What the processor can do, as far as the system tells; nothing that changes with time."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        return [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return [platform.processor(), platform.node()]


def fits(agent: Agent) -> bool:
    """Whether its steps are those that are compiled: of ReLU networks on the CPU, with the usual heads and losses."""
    if not isinstance(agent, AWR):
        return False
    networks = (agent.policy.network, agent.critic.module)
    return (
        all(getattr(type(agent), name) is getattr(AWR, name) for name in STEPS)
        and all(type(own) is MLP and own.activation == "relu" and not own.layer_norm for own in networks)
        and all(network.theta.shape[1] <= LARGEST for network in agent.networks.values())
        and type(agent.policy) is Policy
        and _has_losses(agent.policy.head)
        and _bare(agent.optimizer) in OPTIMIZERS
        and agent.device.type == "cpu"
        and agent.dtype == torch.float32
        and all(entry.kept == "float32" for entry in agent.spec.entries)
    )


def _bare(optimizer: Optimizer) -> Optimizer:
    """The function of a configuration's partial without arguments."""
    if isinstance(optimizer, partial) and not optimizer.args and not optimizer.keywords:
        return optimizer.func
    return optimizer


def _has_losses(head: heads.Head) -> bool:
    if type(head) is heads.Gaussian:
        return head.std != "state_dependent" and head.free is None
    return type(head) is heads.Categorical or (type(head) is heads.AnnealedGaussian and head.free is None)


def critic_steps(agent: AWR, replay: Replay, slots: Tensor, noise: Tensor, target: Tensor) -> Metrics:
    """A step of `AWR.critic_update` for each of slots [S, K, B] of the replay; the sums of their metrics, [K] each.

    noise: of no use to the agents that there is code for.
    """
    facts = [{"loss": VALUE, "value_scale": scale} for scale in agent.value_scale.flatten().tolist()]
    sums = _descend(agent, agent.critic, agent.critic.module, agent.critic_lr, replay, slots, target, facts)
    return {"value_loss": sums[:, 0], "explained_variance": sums[:, 1], "mean_value": sums[:, 2]}


def actor_steps(agent: AWR, replay: Replay, slots: Tensor, noise: Tensor, weight: Tensor) -> Metrics:
    """As `critic_steps`, of `AWR.actor_update`."""
    head, theta = agent.policy.head, agent.actor.theta
    facts = [_head_facts(head, own) for own in theta]
    if agent.actor.average is not None:
        decays = agent.ema_decay.flatten().tolist()
        facts = [own | {"average": agent.actor.average[k], "ema_decay": decays[k]} for k, own in enumerate(facts)]
    sums = _descend(agent, agent.actor, agent.policy.network, agent.actor_lr, replay, slots, weight, facts)
    return {"actor_loss": sums[:, 0], "entropy": sums[:, 1]}


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
    agent: AWR,
    network: Net,
    mlp: MLP,
    lr: Tensor,
    replay: Replay,
    slots: Tensor,
    number: Tensor,
    facts: Sequence[dict[str, Any]],
) -> Tensor:
    """The sums of three metrics over all steps, [K, 3]; facts: further fields of each member's `Problem`.

    Raises MemoryError.
    """
    compiled = library()
    assert compiled is not None
    steps, members, batch = slots.shape
    slots, number = slots.contiguous(), number.float().contiguous()
    metrics = torch.zeros(members, 3, dtype=torch.float64)
    sizes = torch.tensor([mlp.inputs, *mlp.hidden, mlp.outputs])
    for member, own in enumerate(facts):
        fields: dict[str, Any] = own | {
            "sizes": sizes,
            "slots": slots[0, member],
            "ring": replay.ring[member],
            "obs_mean": agent.obs_mean[member],
            "obs_std": agent.obs_std[member],
            "number": number[member],
            "metrics": metrics[member],
            "layers": len(sizes) - 1,
            "steps": steps,
            "batch": batch,
            "slot_stride": members * batch,
            "ring_width": replay.schema.width,
            **{name: replay.schema.columns[name][0] for name in ("obs", "action")},
            "threads": torch.get_num_threads(),
            "optimizer": OPTIMIZERS.index(_bare(agent.optimizer)),
            "obs_limit": float(agent.obs_limit[member]),
            "rate": float(lr[member]),
            "max_norm": float(agent.max_grad_norm[member]),
        }
        fields |= {name: tensor[member] for name, tensor in network.tensors().items()}
        problem = Problem(
            **{name: value.data_ptr() if isinstance(value, Tensor) else value for name, value in fields.items()}
        )
        if compiled.descend(ctypes.byref(problem)):
            raise MemoryError("no memory is left for gradient steps")
    return metrics.float()
