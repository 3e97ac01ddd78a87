"""What every algorithm promises, tried on every agent, head and schedule that conf/ has.

Combinations are found by listing the yaml files: a new one is tried without a change here.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hydra.utils import get_class
from torch.testing import assert_close

import awr_exp
from awr_exp import config, vocabulary
from awr_exp.agents.critic import CriticAgent
from awr_exp.building.build import build
from awr_exp.building.stacking import group_key, own_values, stack
from awr_exp.data.episodes import from_episodes
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.layout import Entry
from awr_exp.metadata import policy_metadata
from awr_exp.training import checkpoint, native
from awr_exp.training.accelerate import compiler
from awr_exp.training.run import Run
from awr_exp.training.trainer import Trainer
from awr_exp.types import Spec
from tests import conftest
from tests.conftest import CONTINUOUS, DISCRETE, IMAGES, composed, train

TASKS = {"continuous": CONTINUOUS, "discrete": DISCRETE}
CHOICES = Spec(3, 2, action=(Entry((), (2,), (2, 3), (0, -1)),))
LARGE = ("network=cnn", "network=impala")
FOR_IMAGES = (*LARGE, "network=cnn_small", "augmentation=random_shift")
AGENTS, HEADS = map(config.options, ("agent", "head"))
OTHERS = [
    f"{group}={one}" for group in ("weighting", "network", "optimizer", "augmentation") for one in config.options(group)
]
OFFLINE = "offline"
SCHEDULES = [OFFLINE, *config.options("schedule")]

SMALL = {
    "updates": 8, "env_steps": 32, "envs": 2, "workers": 0, "replay_size": 24, "batch_size": 8, "refresh_interval": 3,
    "report_interval": 4, "eval_interval": 1_000, "eval_episodes": 1, "checkpoint_interval": 1_000, "compile": False,
    "anneal_steps": 32,
}  # fmt: skip
"""A run of few steps, of which half are as many turns."""
SMALL_SCHEDULE = {
    "samples_per_iteration": 8, "critic_steps": 2, "actor_steps": 3, "normalizer_samples": 16, "learning_starts": 8,
    "update_interval": 4, "refresh_interval": 6,
}  # fmt: skip


class Walk(gymnasium.Env):
    """A random walk that actions push, in episodes of up to seven steps."""

    def __init__(self, discrete: bool, several: bool = False) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (CONTINUOUS.obs_dim,), np.float32)
        low, high = (np.array(bound, np.float32) for bound in (CONTINUOUS.action_low, CONTINUOUS.action_high))
        self.action_space = spaces.Discrete(DISCRETE.num_actions) if discrete else spaces.Box(low, high)
        if several:
            self.action_space = spaces.MultiDiscrete(CHOICES.counts, start=CHOICES.starts)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps, self.place = 0, self.np_random.normal(size=3).astype(np.float32)
        return self.place, {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        push = 0.3 * float(np.sum(action))
        self.place = (0.8 * self.place + push + self.np_random.normal(size=3)).astype(np.float32)
        return self.place, float(push - self.place[0]), bool(self.place[1] > 2.5), self.steps == 7, {}


class Drawn(gymnasium.ObservationWrapper):
    """Shows the place as an image, of a grey band for each number."""

    observation_space = spaces.Box(0, 255, IMAGES.entries[0].shape, np.uint8)

    def observation(self, place: Any) -> Any:
        bands = np.resize(np.clip(128 + 40 * place, 0, 255), self.observation_space.shape[:1])
        return np.repeat(bands[:, None], self.observation_space.shape[1], 1).astype(np.uint8)


@dataclass(frozen=True)
class MakeWalk:
    discrete: bool
    images: bool = False
    several: bool = False

    @classmethod
    def of(cls, spec: Spec) -> "MakeWalk":
        return cls(spec.discrete, bool(spec.observation), bool(spec.action))

    def __call__(self) -> gymnasium.Env:
        walk = Walk(self.discrete, self.several)
        return Drawn(walk) if self.images else walk


@cache
def data_set(spec: Spec) -> Transitions:
    """What is seen in some episodes of random actions."""
    env, episodes = MakeWalk.of(spec)(), []
    env.action_space.seed(0)
    for seed in range(12):
        seen, actions, rewards, terminated, truncated = [env.reset(seed=seed)[0]], [], [], False, False
        while not (terminated or truncated):
            action = env.action_space.sample()
            actions.append(action - spec.starts if spec.discrete else action)
            obs, reward, terminated, truncated, _ = env.step(action)
            seen.append(obs), rewards.append(reward)
        episodes.append(
            {"observations": spec.flatten(seen), "actions": actions, "rewards": rewards, "terminated": terminated}
        )
    return from_episodes("walk", spec, episodes)


class Rows:
    """A logger that keeps what it gets."""

    id = None

    def __init__(self) -> None:
        self.values: list[tuple[int, str, float]] = []

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        self.values += [(update, *item) for item in metrics.items() if "per_second" not in item[0]]

    def finish(self, *arguments: Any) -> None: ...


def configuration(schedule: str, *overrides: str) -> dict[str, Any]:
    """Of a small run."""
    online = [] if schedule == OFFLINE else ["trainer=online", f"schedule={schedule}", "env=gym", "env.id=none"]
    cfg = composed(*online, *overrides)
    shrink(cfg["agent"]["network"])
    trainer = cfg["trainer"]
    trainer |= {name: value for name, value in SMALL.items() if name in trainer}
    if online:
        own = trainer["schedule"]
        own |= {name: value for name, value in SMALL_SCHEDULE.items() if name in own}
    return cfg


def shrink(network: Any) -> None:
    """Give all layers of a network four units."""
    for name, value in network.items():
        if isinstance(value, dict):
            shrink(value)
        elif name in ("hidden", "filters", "widths"):
            network[name] = [4] * (1 if name == "hidden" else len(value))


def make(cfgs: list[dict[str, Any]], folder: Path, spec: Spec, dtype: torch.dtype = torch.float64) -> Trainer:
    """A trainer of the members that these configurations are."""
    nodes = [cfg["agent"] for cfg in cfgs]
    agent = build(stack(nodes), spec=spec, seeds=[cfg["seed"] for cfg in cfgs], dtype=dtype)
    metadata = [policy_metadata(spec, node) | agent.facts for node in nodes]
    runs = [
        Run(folder / str(cfg["seed"]), metadata=own, logger=Rows()) for cfg, own in zip(cfgs, metadata, strict=True)
    ]
    offline = "updates" in cfgs[0]["trainer"]
    source: dict[str, Any] = {"make_env": None if offline else MakeWalk.of(spec)}
    if offline:
        source["data"] = data_set(spec)
        agent.fit_normalizer(*source["data"].obs_statistics())
    return build(cfgs[0]["trainer"], agent=agent, runs=runs, **source)


def trained(*arguments: Any, **options: Any) -> Trainer:
    trainer = make(*arguments, **options)
    trainer.run()
    assert [run.error for run in trainer.runs] == [None] * len(trainer.runs)
    return trainer


def members(cfg: dict[str, Any]) -> list[dict[str, Any]]:
    """Three that differ in seed and in all that members may have of their own."""
    found = []
    for number in range(3):
        own = copy.deepcopy(cfg) | {"seed": 3 + number}
        for place, key in own_values(own["agent"]):
            value = place[key]
            if isinstance(value, bool):
                place[key] = value != (number == 1)
            else:
                place[key] = [None, 1.0, 0.1][number] if value is None else value / (1, 1.5, 3)[number]
        found.append(own)
    # A sweep over any of it trains as one model.
    assert len({group_key(one) for one in found}) == 1
    return found


def halved(cfg: dict[str, Any]) -> dict[str, Any]:
    half = copy.deepcopy(cfg)
    name = "updates" if "updates" in half["trainer"] else "env_steps"
    if name == "updates":
        # Not the half of a shorter run, whose learning rate would fall sooner.
        half["trainer"]["anneal_updates"] = half["trainer"][name]
    half["trainer"][name] //= 2
    return half


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All that a checkpoint has of the members."""
    return trainer.agent.state_dict() | {
        f"{name} of {number}": tensor
        for number, (learner, row) in enumerate(trainer.places)
        for name, tensor in learner.state(row).items()
    }


def refused(cfg: dict[str, Any], spec: Spec, folder: Path) -> str | None:
    """The one line with which a trainer is refused, if it is."""
    return conftest.refused(lambda: make([cfg], folder, spec).close())


@cache
def has_values(agent: str) -> bool:
    """Whether it can learn from what it collects."""
    (content,) = (one.content for one in vocabulary.options(config.CONF) if (one.group, one.name) == ("agent", agent))
    return issubclass(get_class(content.get("agent", content)["_target_"]), CriticAgent)


@cache
def fits(head: str, task: str, agent: str = "bc") -> bool:
    """Whether a head is for such actions, and for an agent that may want to climb Q along them."""
    cfg = composed(f"agent={agent}")["agent"] | {"head": composed(f"head={head}")["head"]}
    shrink(cfg["network"])
    said = conftest.refused(lambda: build(cfg, spec=TASKS[task], seeds=[0]))
    assert said is None or re.search(r"needs (continuous|discrete) actions|climbs Q|lacks a density", said)
    return said is None


def combinations() -> Iterator[Any]:
    """Schedule, agent, task and another option.

    Every agent is tried with one head offline, and every fourth other option in one place. The others in that place,
    and agents in another one, by turns, are long, and the rest is slow.
    """
    others = [
        *(f"head={head}" for head in HEADS),
        *(f"advantage={one}" for one in config.options("advantage")),
        *OTHERS,
    ]
    agents = [
        (agent, schedule) for agent in AGENTS for schedule in SCHEDULES if schedule == OFFLINE or has_values(agent)
    ]
    for number, option in enumerate(others):
        group, _, _ = option.partition("=")
        places = [(agent, schedule) for agent, schedule in agents if group == "head" or agent == "awr"]
        for agent, schedule in places:
            for task in [*TASKS, "images"]:
                # Whether a head fits takes a while to find out, and the test does.
                if task == "images" if option in FOR_IMAGES else task in (TASKS if group == "head" else ["continuous"]):
                    place = AGENTS.index(agent)
                    turn = SCHEDULES[place % len(SCHEDULES)], list(TASKS)[place % len(TASKS)]
                    usual = option == "head=auto"
                    now = usual and ((schedule == OFFLINE and task == "continuous") or agent == "awr")
                    here = (agent, schedule) == places[number % len(places)]
                    later = here or (usual and ((schedule, task) == turn or agent == "iql"))
                    now = now or (here and option not in LARGE and number % 4 == 0)
                    marks = () if now else pytest.mark.long if later else pytest.mark.slow
                    combination = schedule, agent, task, option
                    yield pytest.param(combination, marks=marks, id=" ".join(combination))


@pytest.mark.parametrize("combination", list(combinations()))
def test_what_is_combined_learns_and_keeps_its_promises(combination: tuple[str, str, str, str], tmp_path: Path) -> None:
    """Numbers stay finite, a member trains as it would alone, resumes to the bit, and acts by what it has saved.

    Or the combination is refused by a sentence that `fits` knows.
    """
    schedule, agent, task, option = combination
    if option.startswith("head=") and not fits(option.removeprefix("head="), task, agent):
        return
    if option.startswith("head="):
        cfg = configuration(schedule, f"agent={agent}")
        cfg["agent"]["head"] = composed(option)["head"]
    else:
        cfg = configuration(schedule, f"agent={agent}", option)
    # All three of two agents and each schedule, and else one, whose turn it is.
    chosen = range(3) if option == "head=auto" and agent in ("awr", "iql") else [sum(map(len, combination)) % 3]
    keeps_promises(cfg, IMAGES if task == "images" else TASKS[task], tmp_path, chosen)


@pytest.mark.parametrize(("agent", "schedule"), [("awr", OFFLINE), ("iql", "interleaved")])
def test_several_choices_keep_the_promises(agent: str, schedule: str, tmp_path: Path) -> None:
    keeps_promises(configuration(schedule, f"agent={agent}"), CHOICES, tmp_path, [1])


def keeps_promises(
    cfg: dict[str, Any], spec: Spec, folder: Path, chosen: Iterable[int] = range(3), trust: Sequence[str] = ()
) -> None:
    """chosen: those of three members that are trained alone, too."""
    cfgs = members(cfg)
    together = trained(cfgs, folder, spec)
    for number in chosen:
        is_as_alone(together, number, trained([cfgs[number]], folder / "alone", spec))
    resumes(together, cfgs, spec, folder / "resumed")
    acts_by_what_is_saved(together, trust)


def is_as_alone(together: Trainer, number: int, alone: Trainer) -> None:
    learnt = together.agent.state_dict()
    for name, tensor in alone.agent.state_dict().items():
        assert_close(learnt[name][number : number + 1], tensor, rtol=1e-5, atol=1e-6, msg=name)
    rows, own = (trainer.runs[place].logger.values for trainer, place in ((together, number), (alone, 0)))
    assert [row[:2] for row in rows] == [row[:2] for row in own]
    assert all(np.isfinite(row[2]) for row in rows)
    assert_close(np.array([row[2] for row in rows]), np.array([row[2] for row in own]), rtol=1e-4, atol=1e-5)


def resumes(together: Trainer, cfgs: list[dict[str, Any]], spec: Spec, folder: Path) -> None:
    half = trained([halved(cfg) for cfg in cfgs], folder, spec)
    resumed = make(cfgs, folder, spec)
    resumed.resume()
    assert 0 < resumed.step < together.step
    resumed.run()
    before, after = state(together), state(resumed)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        # As bytes: those of images may look like what are no numbers.
        assert torch.equal(*(one.contiguous().view(torch.uint8) for one in (tensor, after[name]))), name
    for name, network in half.agent.networks.items():
        assert not torch.equal(network.theta, together.agent.networks[name].theta), name


def acts_by_what_is_saved(trainer: Trainer, trust: Sequence[str] = ()) -> None:
    agent, spec = trainer.agent.averaged(), trainer.agent.spec
    obs = np.random.default_rng(0).normal(size=(agent.members, 5, spec.obs_dim)).astype(np.float32)
    numpy_policy = agent.numpy_policy()
    for number, run in enumerate(trainer.runs):
        policy = awr_exp.load(run.folder, which="latest", trust=trust)
        noise = np.random.default_rng(1).standard_normal((5, policy.policy.head.noise), np.float32)
        for drawn in (None, noise):
            every = None if drawn is None else torch.as_tensor(drawn).expand(agent.members, -1, -1)
            expected = agent.act(torch.as_tensor(obs), every)[number].numpy()
            own = policy._chosen(torch.as_tensor(obs[number]), None if drawn is None else torch.as_tensor(drawn))
            assert_close(own.numpy(), expected, rtol=1e-5, atol=1e-5)
            if numpy_policy is not None:
                shared = None if drawn is None else np.broadcast_to(drawn, (agent.members, *drawn.shape))
                assert_close(numpy_policy(obs, shared)[number], expected, rtol=1e-4, atol=1e-4, check_dtype=False)
        quick = policy.act_on_one(sample=False)
        one = np.asarray(quick(obs[number, 0], np.random.default_rng(2)))
        own = policy._chosen(torch.as_tensor(obs[number, :1]), None)[0]
        assert_close(one, own.numpy(), rtol=1e-4, atol=1e-4, check_dtype=False)


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_refused_where_the_actions_are_of_another_kind(head: str, tmp_path: Path) -> None:
    assert any(fits(head, task) for task in TASKS)
    for task in TASKS:
        if not fits(head, task):
            said = refused(configuration(OFFLINE, f"head={head}"), TASKS[task], tmp_path)
            assert said is not None
            assert re.fullmatch("head=.*", said)
            assert f"needs {'discrete' if task == 'continuous' else 'continuous'} actions" in said


@pytest.mark.parametrize("schedule", SCHEDULES[1:])
@pytest.mark.parametrize("agent", [agent for agent in AGENTS if not has_values(agent)])
def test_an_agent_without_values_is_refused_where_it_would_collect(agent: str, schedule: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"needs an agent that learns values: choose agent=awr$"):
        configuration(schedule, f"agent={agent}")
    cfg = configuration(schedule) | {"agent": configuration(OFFLINE, f"agent={agent}")["agent"]}
    said = refused(cfg, CONTINUOUS, tmp_path)
    assert said == "trainer=online needs an agent that learns values: choose agent=awr"


def test_a_deviation_that_is_no_number_is_not_annealed() -> None:
    with pytest.raises(UserError, match=r"head\.std is \"state_dependent\"; it must be a positive, finite number"):
        configuration(OFFLINE, "head=gaussian_annealed", "head.std=state_dependent")


def agree(cfg: dict[str, Any], spec: Spec, folder: Path, dtype: torch.dtype, tolerance: float) -> None:
    """Members trained by a backend are as those trained eagerly, up to rounding."""
    found = []
    for compiles in (False, True):
        cfgs = members(cfg | {"trainer": cfg["trainer"] | {"compile": compiles}})
        found.append(trained(cfgs, folder / str(compiles), spec, dtype).agent.state_dict())
    for name, tensor in found[0].items():
        assert_close(found[1][name], tensor, rtol=tolerance, atol=tolerance, msg=name)


def with_state(agent: str) -> list[str]:
    """The choice of a weighting that learns something, for agents that have one."""
    return ["weighting=adaptive_kl"] if composed(f"agent={agent}")["weighting"] else []


NATIVE = ("awr", "rwr", "marwil", "bc", "bc_top")
"""The agents whose steps there are in C++."""
COMPILED = [
    pytest.param("eager", "iql", OFFLINE, "mixture", "continuous", marks=pytest.mark.long),
    *(
        pytest.param("inductor", agent, schedule, head, task, marks=pytest.mark.slow)
        for agent in AGENTS
        for schedule in SCHEDULES
        for head, task in (("mixture", "continuous"), ("categorical", "discrete"))
        if schedule == OFFLINE or has_values(agent)
    ),
]
"""The first is read by the compiler, which does not write code for it: that takes long."""


@pytest.mark.parametrize(("backend", "agent", "schedule", "head", "task"), COMPILED)
def test_a_compiled_agent_learns_what_an_eager_one_does(
    backend: str,
    agent: str,
    schedule: str,
    head: str,
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    compile = torch.compile

    def whole(function: Any, **options: Any) -> Any:
        """As one graph, or with an error."""
        own = options if backend == "inductor" else {"dynamic": False}
        return compile(function, **own, fullgraph=True, backend=backend)

    monkeypatch.setattr(torch, "compile", whole)
    monkeypatch.setattr(native, "fits", lambda agent: False)
    if not fits(head, task, agent):
        return
    cfg = configuration(schedule, f"agent={agent}", f"head={head}", *with_state(agent))
    cfg["agent"] |= {name: 1 for name in ("value_iters",) if name in cfg["agent"]}
    agree(cfg, TASKS[task], tmp_path / task, torch.float64, 1e-6)
    assert "compilation failed" not in caplog.text


@pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("head", "task"), [("gaussian_annealed", "continuous"), ("categorical", "discrete")])
@pytest.mark.parametrize("agent", ["awr", *(pytest.param(one, marks=pytest.mark.long) for one in (*NATIVE[1:], "iql"))])
def test_what_is_learnt_in_cpp_is_what_the_agent_learns(
    agent: str, head: str, task: str, schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (schedule != OFFLINE and not has_values(agent)) or not fits(head, task, agent):
        return
    cfg = configuration(schedule, f"agent={agent}", f"head={head}", *with_state(agent))
    if native.fits(build(cfg["agent"], spec=TASKS[task], seeds=[0])):
        # What follows must not come from the other way of compiling.
        monkeypatch.setattr(torch, "compile", None)
        agree(cfg, TASKS[task], tmp_path, torch.float32, 1e-3)
    else:
        assert agent not in NATIVE


def walk_data(device: torch.device | str = "cpu") -> Transitions:
    """As a configuration names it."""
    return data_set(CONTINUOUS).to(device)


def walk(data: Any, spec: Any) -> MakeWalk:
    return MakeWalk(discrete=False)


def finetuned(steps: int) -> list[dict[str, Any]]:
    """Configurations of IQL that goes on from its own offline part, of which members differ in all that they may."""
    cfg = composed("trainer=finetune", "schedule=interleaved", "agent=iql", "head=mixture", "logger=jsonl")
    cfg = members(cfg | {"threads": 1})
    for one in cfg:
        one["dataset"], one["env"] = {"_target_": f"{__name__}.walk_data"}, {"_target_": f"{__name__}.walk"}
        for node, small in ((one["trainer"], SMALL), (one["trainer"]["pretrain"], SMALL)):
            node |= {name: value for name, value in small.items() if name in node}
        one["trainer"]["schedule"] |= {"learning_starts": 8, "update_interval": 4}
        one["trainer"]["env_steps"] = steps
        one["agent"]["network"]["hidden"] = [4]
    return cfg


def test_implicit_q_learning_goes_on_from_its_own_offline_part_fused_as_alone_and_resumed_to_the_bit(
    tmp_path: Path,
) -> None:
    def states(name: str, count: int = 3) -> list[Any]:
        found = [checkpoint.latest(tmp_path / name / str(number)) for number in range(count)]
        return [one and one[0] for one in found]

    def folders(name: str) -> list[Path]:
        return [tmp_path / name / str(number) for number in range(3)]

    assert [one.error for one in train(finetuned(32), folders("whole"), "abc")] == [None] * 3
    for number, (cfg, folder) in enumerate(zip(finetuned(32), folders("alone"), strict=True)):
        assert train([cfg], [folder])[0].error is None, number
    train(finetuned(16), folders("stopped"), "abc")
    for before, after in zip(states("whole"), states("stopped"), strict=True):
        assert not torch.equal(before["q.average"], after["q.average"])
    train(finetuned(32), folders("stopped"), "abc")
    for whole, alone, resumed in zip(*map(states, ("whole", "alone", "stopped")), strict=True):
        assert whole.keys() == resumed.keys()
        assert not torch.equal(whole["q.average"], whole["q.theta"])
        for name, tensor in whole.items():
            assert torch.equal(resumed[name], tensor), name
            assert_close(alone[name], tensor, rtol=1e-3, atol=1e-3, msg=name)
    offline = checkpoint.latest(tmp_path / "whole" / "0" / "offline")
    assert offline is not None
    assert offline[1]["update"] == SMALL["updates"]
