"""From configurations to trained members: the one place where their parts are built."""

import json
import logging
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.errors import InstantiationException

from awr_exp import results
from awr_exp.agents.agent import AVERAGE, Agent
from awr_exp.data.transitions import Transitions
from awr_exp.envs import fit
from awr_exp.envs.build import Make, opened, task
from awr_exp.envs.make import collecting
from awr_exp.errors import UserError, first_line
from awr_exp.policy import difference, policy_facts
from awr_exp.results import Outcome
from awr_exp.surroundings import kept, usual
from awr_exp.sweep import contracts, stacking, targets
from awr_exp.training import accelerate, checkpoint, closing, memory
from awr_exp.training.loggers import Jsonl, Logger, Many
from awr_exp.training.progress import speaking
from awr_exp.types import Spec

log = logging.getLogger(__name__)

Config = dict[str, Any]
Found = tuple[checkpoint.State, Config]
"""A checkpoint."""


def train(cfgs: Sequence[Config], folders: Sequence[Path], names: Sequence[str] = ()) -> list[Outcome]:
    """Train checked configurations as the members of one agent, each in its folder; a single run is one member.

    They may differ in what `stacking.group_key` leaves out, and go on from where their folders are, which must be the
    same place (see `reached`). One whose recorder cannot be built, or whose offline part fails, fails alone. names:
    what each is called on the screen, where there are several. Raises UserError for what is wrong with all of them.
    """
    with usual(), ExitStack() as stack:
        for folder in folders:
            stack.enter_context(results.alone(folder))
        stack.enter_context(memory.exhausted())
        return _train(cfgs, folders, names)


def _train(cfgs: Sequence[Config], folders: Sequence[Path], names: Sequence[str]) -> list[Outcome]:
    first, names = cfgs[0], names or [""] * len(cfgs)
    targets.check(first)
    device = accelerate.start(first["device"], first["threads"])
    data, make_env, spec = _task(first, device)
    _check_memory(first, spec, data, device)
    recorders, refused = _recorders(cfgs, folders, names, make_env, data)
    if len(refused) == len(cfgs):
        return list(refused.values())
    members = range(len(cfgs))
    others = [number for number in members if number not in refused]
    cfgs, folders, names = [cfgs[n] for n in others], [folders[n] for n in others], [names[n] for n in others]
    known = [{"dataset/return_mean": data.info.return_mean} if data else {} for _ in cfgs]

    def fit(part: str, node: Config, folders: Sequence[Path], title: str, begin: Sequence[Found] = ()) -> list[Outcome]:
        """Train a part of the configurations by a trainer; from checkpoints of other runs, if any."""
        logs = title == "training"
        done = [checkpoint.latest(folder, tensors=False) for folder in folders]
        nodes = [cfg[part] for cfg in cfgs]
        agent = build(stacking.stack(nodes), spec=spec, seeds=[cfg["seed"] for cfg in cfgs], device=device)
        contracts.check_made("agent", nodes[0], agent, Agent)
        facts = [policy_facts(spec, own, data.info.reward_scale if data else 1.0) for own in nodes]
        resumes = all(done)
        before = [found[1] for found in done if found]
        if resumes:
            _check_same("the run to resume", before, facts)
        if begin:
            _take_over(agent, facts, begin)
        elif data:
            agent.fit_normalizer(*data.obs_statistics())
        loggers: list[Any] = []
        parts = {"agent": agent, "make_env": make_env, "title": title, "names": names}
        if data:
            parts["data"] = data
        if logs and recorders:
            parts["recorders"] = recorders
        # It gets its loggers later: a run that cannot be built, or resumed, should not begin a record of itself.
        trainer = build(node, loggers=loggers, folders=folders, facts=facts, **parts)
        try:
            if resumes:
                trainer.resume()
                _forget_others_moments(agent, before, facts)
            for cfg, folder, name, fact, found in zip(cfgs, folders, names, facts, done, strict=True):
                with speaking(folder, name):
                    loggers.append(_logger(cfg, folder, found, logs))
                fact["run_id"] = loggers[-1].id
        except BaseException:
            trainer.close()
            raise
        if not resumes:
            for logger, levels in zip(loggers, known, strict=True):
                if levels:
                    logger.log(0, levels)
        return closing.run(trainer, loggers, folders)

    baselines: list[Outcome] = []
    trainer = {name: value for name, value in first["trainer"].items() if name != "pretrain"}
    pretrain = first["trainer"].get("pretrain")
    begin: list[Found] = []
    # A run that has begun needs nothing of what came before it.
    begins = pretrain and not all(checkpoint.latest(folder, tensors=False) for folder in folders)
    if begins:
        _rehearse(first, trainer, spec, device, data=data, make_env=make_env)
        begin = [_found(Path(first["resume_policy"])) for _ in cfgs if first["resume_policy"]]
    try:
        if first.get("baseline"):
            baselines = fit("baseline", pretrain or trainer, [folder / "baseline" for folder in folders], "baseline")
            for levels, outcome in zip(known, baselines, strict=True):
                if outcome.error is None and "eval/return_mean" in outcome.metrics:
                    levels["baseline/return_mean"] = outcome.metrics["eval/return_mean"]
        if begins and not begin:
            sources = [folder / "offline" for folder in folders]
            pretrained = fit("agent", pretrain, sources, "offline")
            for number, folder, one in zip(others, folders, pretrained, strict=True):
                if one.error:
                    refused[number] = one
                    results.write(
                        folder,
                        {"status": results.FAILED, "error": str(one.error), "update": 0, "metrics": dict(one.metrics)},
                    )
            # What one did not learn to the end is nothing to go on from.
            stay = [row for row, one in enumerate(pretrained) if one.error is None]
            if not stay:
                return [refused[member] for member in members]
            cfgs, folders, names = (
                [cfgs[row] for row in stay],
                [folders[row] for row in stay],
                [names[row] for row in stay],
            )
            known, recorders = [known[row] for row in stay], [recorders[row] for row in stay if recorders]
            begin = [_found(sources[row]) for row in stay]
        outcomes = fit("agent", trainer, folders, "training", begin)
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGUSR2:
            # Everything is saved. Now the scheduler, whose notice this was, may queue the job again.
            signal.raise_signal(signal.SIGUSR2)
        raise
    if not any(names) and outcomes[0].error is None:
        baseline = baselines[0] if baselines else None
        closing.show(data and data.info, outcomes[0], baseline, folders[0], first)
    trained = iter(outcomes)
    return [refused.get(member) or next(trained) for member in members]


def _check_memory(cfg: Config, spec: Spec, data: Any, device: Any) -> None:
    """Raises UserError where a part of a run, before it is made, is known to take more memory than there is."""
    trainer, rows = cfg["trainer"], len(data) if data else 0
    pretrain = trainer.get("pretrain")
    own, first = ("trainer", trainer), ("trainer.pretrain", pretrain) if pretrain else ("trainer", trainer)
    for node, (name, part) in ((cfg["agent"], own), (cfg.get("baseline"), first), (cfg["agent"], first)):
        if node:
            memory.check(cfg | {"trainer": part}, spec, _parameters(node, spec), rows, device, name)


def _parameters(agent: Config, spec: Spec) -> int:
    """Numbers that the networks of an agent learn, without making them. Raises UserError for parts that are none."""
    make = _maker(agent)
    contracts.check(agent, make.keywords, spec)
    if not stacking.is_agent(agent):
        return 0
    # One of no members has everything but numbers.
    return sum(network.theta.shape[1] for network in build(agent, spec=spec, seeds=[]).networks.values())


def _logger(cfg: Config, folder: Path, found: Found | None, all_of_them: bool) -> Many:
    """What a run logs to, from its newest checkpoint on, if it has one."""
    start: Config = found[1] if found else {"update": 0, "run_id": None}
    chosen = (cfg.get("logger") or {}) if all_of_them else {}
    # metrics.jsonl is what resume, the curves and every report read: it is always written.
    rows = Jsonl(folder, update=start["update"] if found else -1, env_steps=start.get("step", 0))
    others = []
    for name, node in chosen.items():
        if name != "jsonl":
            others.append(build(node, folder=folder, config=cfg, update=start["update"], run_id=start["run_id"]))
            contracts.check_made("logger", node, others[-1], Logger)
    return Many([rows, *others])


def _rehearse(cfg: Config, trainer: Config, spec: Spec, device: Any, **parts: Any) -> None:
    """Build a small one of a trainer, so that what is wrong with it is said before something else is trained first."""
    agent = build(cfg["agent"], spec=spec, seeds=[cfg["seed"]], device=device)
    small = trainer | {"workers": min(1, trainer["workers"]), "replay_size": 1, "eval_episodes": 1}
    build(small, agent=agent, loggers=[], folders=[], facts=[], **parts).close()


def _recorders(
    cfgs: Sequence[Config], folders: Sequence[Path], names: Sequence[str], make_env: Any, data: Any
) -> tuple[list[Any], dict[int, Outcome]]:
    """One a member, or none where nothing is recorded; and, by number, the members that cannot have theirs."""
    nodes = [cfg.get("recorder") or {} for cfg in cfgs]
    recorders: list[Any] = []
    refused: dict[int, Outcome] = {}
    if nodes[0].get("dataset_id") is None or make_env is None:
        if idle := [name for name in ("last_steps", "checkpoints") if nodes[0].get(name) is not None]:
            raise UserError(f"recorder.{idle[0]} is of a data set: give it a recorder.dataset_id")
        return recorders, refused
    place = collecting(make_env, data and data.info, data and data.spec)
    spec, envs = task(place, as_played=True), cfgs[0]["trainer"]["envs"]
    for member, (node, folder, name) in enumerate(zip(nodes, folders, names, strict=True)):
        with speaking(folder, name):
            try:
                if "_target_" not in node:
                    raise UserError(
                        "collect=none records nothing: choose collect=minari, or leave out recorder.dataset_id"
                    )
                recorders.append(build(node, folder=folder, spec=spec, envs=envs))
            except UserError as error:
                log.error("error: %s", error)
                refused[member] = Outcome({}, error)
    return recorders, refused


def _found(folder: Path) -> Found:
    """The best checkpoint of a run."""
    found = checkpoint.best(folder)
    if found is None:
        raise UserError(f"resume_policy={folder} is not the folder of a run with a checkpoint")
    return found


def _take_over(agent: Any, mine: Sequence[Config], begin: Sequence[Found]) -> None:
    """Begin as other runs ended, each member as one, or with a new critic where they had none; mine: each member's own
    facts.

    Raises UserError where what was learnt would mean something else.
    """
    states, theirs = zip(*begin, strict=True)
    _check_same("the policy to begin with", theirs, mine)
    # What was found is the averaged policy, where there is one.
    states = tuple(state | {"actor.theta": state.get(AVERAGE, state["actor.theta"])} for state in states)
    if not any(name.startswith("critic.") for name in states[0]):
        log.info("the policy to begin with has no critic: a new one is learnt")
        new = {name: tensor for name, tensor in agent.state_dict().items() if name.startswith("critic.")}
        states = tuple(
            state | {name: tensor[member : member + 1] for name, tensor in new.items()}
            for member, state in enumerate(states)
        )
    try:
        agent.load_state_dict({name: torch.cat([state[name] for state in states]) for name in states[0]})
    except ValueError as error:
        raise UserError(f"the policy to begin with has another agent, network or task: {error}") from None
    _forget_others_moments(agent, theirs, mine)


def _check_same(what: str, theirs: Sequence[Config], mine: Sequence[Config]) -> None:
    """Raises UserError where what was learnt would mean something else with the facts of now."""
    for before, now in zip(theirs, mine, strict=True):
        if other := difference(before, now):
            raise UserError(f"{what} was trained with {other}: give the same, or train anew")


def _forget_others_moments(agent: Any, theirs: Sequence[Config], mine: Sequence[Config]) -> None:
    """What another optimizer took down while it learnt, this one starts anew."""
    if theirs[0].get("optimizer", mine[0]["optimizer"]) != mine[0]["optimizer"]:
        log.info("the policy to begin with was trained with another optimizer, whose moments start anew")
        for network in agent.networks.values():
            network.forget_moments()


@usual()
def parts(cfgs: Sequence[Config]) -> list[slice]:
    """Configurations that may train as one, divided so that the memory takes each part."""
    first = cfgs[0]
    if len(cfgs) == 1:
        return [slice(0, 1)]
    device = accelerate.start(first["device"], first["threads"])
    data = _data(first["dataset"], device)
    spec = data.spec if data else _task(first, device)[2]
    _check_memory(first, spec, data, device)
    sample, trainer = build(first["agent"], spec=spec, seeds=[0]), first["trainer"]
    rows = len(data) if data else 0
    kept = trainer.get("replay_size", 0)
    most = memory.capacity(sample, rows, kept and rows + kept, trainer.get("batch_size", 1), device)
    if len(cfgs) > most:
        log.warning("%d members do not fit the memory of %s: training %d at a time", len(cfgs), device, most)
    return [slice(start, start + most) for start in range(0, len(cfgs), most)]


def reached(folder: Path) -> tuple[tuple[int, int], ...]:
    """Update and environment step of the newest checkpoints of a run, its baseline and its offline part.

    (-1, -1) where there is none.
    """
    places = (folder, folder / "baseline", folder / "offline")
    found = [checkpoint.latest(place, tensors=False) for place in places]
    return tuple((one[1]["update"], one[1].get("step", 0)) if one else (-1, -1) for one in found)


def _task(cfg: Config, device: Any) -> tuple[Any, Any, Spec]:
    """The data set, or None; what makes the environment, or None; and their shapes."""
    data = _data(cfg["dataset"], device)
    make_env = build(cfg["env"], data=data and data.info, spec=data and data.spec)
    if data is None and make_env is None:
        raise UserError("there is nothing to learn from: choose a data set or an environment")
    if make_env and not isinstance(make_env, Make):
        contracts.check_made("env", cfg["env"], make_env, Callable)
        with opened(make_env) as env:
            if data:
                fit.check(env, cfg["env"]["_target_"], True, data.info, data.spec, "choose another env")
    return data, make_env, data.spec if data else task(make_env)


_held: tuple[str, Any] = ("", None)


def _data(node: Config, device: Any) -> Any:
    """The data set, kept for the next group of a sweep, which most often wants the same; None for dataset=none."""
    global _held
    if not node:
        return None
    key = json.dumps([node, str(device)], sort_keys=True, default=str)
    if _held[0] != key:
        # The old one goes before the new one comes.
        _held = ("", None)
        data = build(node, device=device)
        contracts.check_made("dataset", node, data, Transitions)
        _held = (key, data)
    return _held[1]


def _maker(node: Config) -> Any:
    """What `build` calls, with the parts within it built."""
    targets.check(node)
    try:
        return hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    except InstantiationException as error:
        # Of a part within this one, the cause says more than that it failed.
        reason = " ".join(str(error.__cause__ or first_line(error)).split())
        part = re.search(r"full_key: (\w+)$", str(error))
        if part and part[1] in contracts.CONTRACTS and isinstance(error.__cause__, TypeError):
            raise contracts.broken(part[1], node[part[1]], reason) from error
        raise UserError(f"{node['_target_']} cannot be built: {reason}") from error


@kept()
def build(node: Config, **parts: Any) -> Any:
    """The one place where a configuration becomes an object: calls its `_target_` with its values and `parts`."""
    make = _maker(node)
    try:
        return make(**parts)
    except TypeError as error:
        # A key that the constructor does not know, added with + or from an own yaml.
        if "argument" in str(error):
            raise UserError(f"{node['_target_']}: {error}") from error
        raise
