"""The data set and the environment of a configuration, and whether the memory takes what is to be learnt from them."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from awr_exp import settings
from awr_exp.building import contracts, stacking
from awr_exp.building.build import build, maker
from awr_exp.data.transitions import Transitions
from awr_exp.envs import fit
from awr_exp.envs.build import Make, collecting, opened, task
from awr_exp.errors import UserError
from awr_exp.surroundings import usual
from awr_exp.training import accelerate, fqe, memory
from awr_exp.types import Spec

log = logging.getLogger(__name__)

Config = dict[str, Any]


def check_memory(config: Config, spec: Spec, data: Any, device: Any) -> None:
    """Raises UserError where a part of a run, before it is made, is known to take more memory than there is."""
    trainer, rows = config["trainer"], len(data) if data else 0
    pretrain = trainer.get("pretrain")
    own, first = ("trainer", trainer), ("trainer.pretrain", pretrain) if pretrain else ("trainer", trainer)
    for node, (name, part) in ((config["agent"], own), (config.get("baseline"), first), (config["agent"], first)):
        if node:
            memory.check(config | {"trainer": part}, spec, parameters(node, spec), rows, device, name)


def parameters(agent: Config, spec: Spec) -> int:
    """Numbers that the networks of an agent learn, without making them. Raises UserError for parts that are none."""
    make, is_ours = maker(agent), stacking.is_agent(agent)
    if is_ours:
        # Before its head, which says less.
        make.func.check_task(spec)
    contracts.check(agent, make.keywords, spec)
    if not is_ours:
        return 0
    # One of no members has everything but numbers.
    return sum(network.theta.shape[1] for network in build(agent, spec=spec, seeds=[]).networks.values())


def open_task(config: Config, device: Any) -> tuple[Any, Any, Spec]:
    """The data set, or None; what makes the environment, or None; and their shapes."""
    data = data_set(config["dataset"], device, config["agent"])
    make_env = build(config["env"], data=data and data.info, spec=data and data.spec)
    if data is None and make_env is None:
        raise UserError("there is nothing to learn from: choose a data set or an environment")
    if make_env and not isinstance(make_env, Make):
        contracts.check_made("env", config["env"], make_env, Callable)
        with opened(make_env) as env:
            if data:
                fit.check(env, config["env"]["_target_"], True, data.info, data.spec, "choose another env")
    spec = data.spec if data else task(make_env)
    if data and make_env and "replay_size" in config["trainer"]:
        # What is collected is as the environment shows it, whatever the data were made of.
        spec = replace(spec, history=task(collecting(make_env)).history)
    return data, make_env, spec


_held: tuple[str, Any] = ("", None)


def data_set(node: Config, device: Any, agent: Config | None = None) -> Any:
    """The data set, kept for the next group of a sweep, which most often wants the same; None for dataset=none.

    agent: the configuration of the one that learns from it, whose discount the rewards of chunks are summed by.
    """
    global _held
    if not node:
        return None
    gamma = {"gamma": (agent or {}).get("gamma", fqe.GAMMA)} if settings.chunk(node) > 1 else {}
    key = json.dumps([node, gamma, str(device)], sort_keys=True, default=str)
    if _held[0] != key:
        # The old one goes before the new one comes.
        _held = ("", None)
        data = build(node, device=device, **gamma)
        contracts.check_made("dataset", node, data, Transitions)
        _held = (key, data)
    return _held[1]


@usual()
def parts(cfgs: Sequence[Config]) -> list[slice]:
    """Configurations that may train as one, divided so that the memory takes each part."""
    first = cfgs[0]
    if len(cfgs) == 1:
        return [slice(0, 1)]
    device = accelerate.start(first["device"], first["threads"])
    data = data_set(first["dataset"], device, first["agent"])
    spec = data.spec if data and "replay_size" not in first["trainer"] else open_task(first, device)[2]
    check_memory(first, spec, data, device)
    sample, trainer = build(first["agent"], spec=spec, seeds=[0]), first["trainer"]
    rows = len(data) if data else 0
    kept = trainer.get("replay_size", 0)
    kept, estimates = kept and rows + kept, bool(first.get("evaluate"))
    most = memory.capacity(sample, rows, kept, trainer.get("batch_size", 1), device, estimates)
    if len(cfgs) > most:
        log.warning("%d members do not fit the memory of %s: training %d at a time", len(cfgs), device, most)
    return [slice(start, start + most) for start in range(0, len(cfgs), most)]
