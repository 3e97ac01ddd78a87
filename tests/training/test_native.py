"""Compiled gradient steps are the agents' own."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from awr_exp.agents.agent import Agent
from awr_exp.agents.awr import AWR
from awr_exp.agents.bc import BC
from awr_exp.agents.rwr import RWR
from awr_exp.data.replay import Replay
from awr_exp.math import optimizers, weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.math.running import ExpRunningScale
from awr_exp.networks import heads
from awr_exp.networks.mixture import Mixture
from awr_exp.networks.mlp import MLP
from awr_exp.training import native, native_library, schedules, steps
from awr_exp.training.accelerate import compiler
from awr_exp.training.loggers import Jsonl
from awr_exp.training.offline import Offline
from awr_exp.training.online import Online
from awr_exp.training.rows import read
from awr_exp.training.run import Run
from awr_exp.types import Batch, Metrics, Spec
from tests.conftest import CONTINUOUS, DISCRETE, make_awr, random_batch
from tests.training.test_offline import random_data
from tests.training.test_offline import trainer as offline

HALF_BOUNDED = Spec(3, 2, None, (-1.0, -float("inf")), (1.0, float("inf")))
GAUSSIAN = partial(heads.Gaussian, std=0.4, bound_penalty=10.0)
HEADS: dict[str, tuple[Spec, Any]] = {
    "fixed": (CONTINUOUS, GAUSSIAN),
    "unbounded": (HALF_BOUNDED, GAUSSIAN),
    "learnt": (CONTINUOUS, heads.Gaussian),
    "annealed": (CONTINUOUS, heads.AnnealedGaussian),
    "chunks": (CONTINUOUS.chunked(2), heads.Gaussian),
    "categorical": (DISCRETE, partial(heads.Categorical, logit_penalty=0.01)),
}
LR = 1e-4
Problem = tuple[AWR, Replay, Tensor, Tensor]

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def problem(
    spec: Spec,
    head: Any,
    members: int = 2,
    batch: int = 32,
    steps: int = 4,
    hidden: tuple[int, ...] = (20, 33),
    **options: Any,
) -> Problem:
    """An agent, a replay of noise, a number for each of its rows, and slots [steps, members, batch]."""
    agent = make_awr(
        spec,
        list(range(members)),
        network=partial(MLP, hidden=hidden),
        head=head,
        **({"dtype": torch.float32, "actor_lr": LR, "critic_lr": LR, "normalize_values": True} | options),
    )
    agent.fit_normalizer(torch.tensor([0.1, 0.0, -0.3]), torch.tensor([0.5, 0.8, 2.0]))
    agent.normalizer.limit.fill_(1.5)
    replay = Replay(spec, members, 2, 200)
    data = random_batch(
        DISCRETE if spec.discrete else CONTINUOUS.chunked(spec.chunk), members, 2 * 100, dtype=torch.float32
    )
    replay.extend(type(data)(**{k: v.unflatten(1, (100, 2)) for k, v in vars(data).items() if v is not None}))
    g = torch.Generator().manual_seed(1)
    number = 3 * torch.rand(members, 2 * 100, generator=g)
    return agent, replay, number, torch.randint(200, (steps, members, batch), generator=g)


NONE = torch.empty(0)
"""Noise, of which the compiled steps take no notice."""


def both(plain: Problem, compiled: Problem) -> list[dict[str, tuple[Tensor, Tensor]]]:
    """Metrics of critic and actor, of the steps as they are and of the compiled ones."""
    found = []
    for name in ("critic_steps", "actor_steps"):
        here, there = (
            getattr(module, name)(agent, replay, slots, torch.empty(*slots.shape, 0), number)
            for module, (agent, replay, number, slots) in ((steps, plain), (native, compiled))
        )
        found.append({name: (value, there[name]) for name, value in here.items()})
    return found


@pytest.mark.parametrize("max_grad_norm", [None, 0.05])
@pytest.mark.parametrize("optimizer", [optimizers.momentum, optimizers.adam])
@pytest.mark.parametrize("head", HEADS)
def test_steps_are_the_agents_own(head: str, optimizer: Any, max_grad_norm: float | None) -> None:
    options = {"optimizer": optimizer, "max_grad_norm": max_grad_norm}
    plain, compiled = (problem(*HEADS[head], **options) for _ in range(2))
    start = {name: tensor.clone() for name, tensor in plain[0].state_dict().items()}
    assert native.fits(compiled[0])
    for metrics in both(plain, compiled):
        for here, there in metrics.values():
            assert_close(there, here, rtol=1e-4, atol=1e-5)
    for name, tensor in plain[0].state_dict().items():
        # Adam divides by the size of gradients, of which the smallest are rounding.
        assert_close(compiled[0].state_dict()[name], tensor, rtol=1e-4, atol=0.01 * LR)
    for network in ("actor", "critic"):
        assert not torch.equal(plain[0].networks[network].theta, start[f"{network}.theta"])


@pytest.mark.parametrize("head", HEADS)
def test_the_average_of_the_actor_follows_and_its_learning_rate_falls(head: str) -> None:
    own: dict[str, Any] = {"ema_decay": [0.0, 0.5], "anneal_actor_lr": [False, True], "steps": 40}
    plain, compiled = (problem(*HEADS[head], **own) for _ in range(2))
    for agent, *_ in (plain, compiled):
        agent.anneal_over(30)
    both(plain, compiled)
    assert_close(compiled[0].actor.theta, plain[0].actor.theta, rtol=1e-4, atol=0.01 * LR)
    for agent, *_ in (plain, compiled):
        assert agent.actor.average is not None
        assert_close(agent.actor.average[0], agent.actor.theta[0])
        assert not torch.equal(agent.actor.average[1], agent.actor.theta[1])
    assert_close(compiled[0].actor.average, plain[0].actor.average, rtol=1e-4, atol=0.01 * LR)


@pytest.mark.parametrize("hidden", [(1,), (64,), (16, 7, 100)])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_networks_and_batches_of_any_size(hidden: tuple[int, ...], batch: int) -> None:
    plain, compiled = (
        problem(CONTINUOUS, GAUSSIAN, batch=batch, hidden=hidden, optimizer=optimizers.momentum) for _ in range(2)
    )
    for metrics in both(plain, compiled):
        for name, (here, there) in metrics.items():
            if name != "explained_variance" or batch > 1:
                assert_close(there, here, rtol=1e-4, atol=1e-5)
    for name, tensor in plain[0].state_dict().items():
        assert_close(compiled[0].state_dict()[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_any_number_of_threads_and_of_members_gives_the_same_bits(head: str) -> None:
    spec, make_head = HEADS[head]
    agent, replay, number, slots = problem(spec, make_head, members=3, batch=30)
    again = copy.deepcopy(agent)
    native.actor_steps(agent, replay, slots, NONE, number), native.critic_steps(agent, replay, slots, NONE, number)
    for threads, member in ((2, 0), (3, 1), (8, 2)):
        torch.set_num_threads(threads)
        own = again.shard(slice(member, member + 1))
        mine = Replay(spec, 1, 2, 200)
        mine.load(replay.state(member), replay.added)
        args = own, mine, slots[:, member : member + 1], NONE, number[member : member + 1]
        native.actor_steps(*args), native.critic_steps(*args)
        for name, tensor in own.state_dict().items():
            assert torch.equal(tensor, agent.state_dict()[name][member : member + 1]), name


@pytest.mark.parametrize("optimizer", [optimizers.momentum, optimizers.adam])
def test_a_gradient_that_is_not_finite_freezes_its_member_alone(optimizer: Any) -> None:
    agent, replay, number, slots = problem(CONTINUOUS, GAUSSIAN, optimizer=optimizer)
    before = agent.actor.theta.clone()
    number[1] = torch.inf
    metrics = native.actor_steps(agent, replay, slots, NONE, number)
    assert agent.alive.tolist() == [True, False]
    assert agent.actor.step.flatten().tolist() == [4, 0]
    assert torch.equal(agent.actor.theta[1], before[1])
    assert metrics["actor_loss"].isfinite().tolist() == [True, False]
    number[1] = 1
    native.actor_steps(agent, replay, slots, NONE, number)
    assert torch.equal(agent.actor.theta[1], before[1])


@pytest.mark.parametrize("kept", [False, True])
def test_a_standard_deviation_beyond_its_limits_stays(kept: bool) -> None:
    plain, compiled = (problem(CONTINUOUS, heads.Gaussian, optimizer=optimizers.momentum) for _ in range(2))
    for agent in (plain[0], compiled[0]):
        agent.actor.theta[:, -2:] = torch.tensor([-6.0, 3.0]) if kept else torch.tensor([-1.0, 0.5])
    start = plain[0].actor.theta.clone()
    for agent, *_ in (plain, compiled):
        agent.anneal_over(30)
    both(plain, compiled)
    assert_close(compiled[0].actor.theta, plain[0].actor.theta, rtol=1e-4, atol=1e-6)
    assert torch.equal(compiled[0].actor.theta[:, -2:], start[:, -2:]) == kept


def test_weights_of_another_type() -> None:
    plain, compiled = (problem(CONTINUOUS, GAUSSIAN, optimizer=optimizers.momentum) for _ in range(2))
    agent, replay, number, slots = compiled
    expected = native.actor_steps(plain[0], plain[1], plain[3], NONE, plain[2])
    assert torch.equal(
        native.actor_steps(agent, replay, slots, NONE, number.double())["actor_loss"], expected["actor_loss"]
    )


class Halved(AWR):
    """Somebody's own critic."""

    def critic_update(self, batch: Batch) -> Metrics:
        return super().critic_update(replace(batch, target=self.target(batch) / 2))


@pytest.mark.parametrize(
    "options",
    [
        {"network": partial(MLP, hidden=(8,), activation="tanh")},
        {"network": partial(MLP, hidden=(8,), layer_norm=True)},
        {"head": heads.TanhGaussian},
        {"head": Mixture},
        {"head": partial(heads.Gaussian, std="state_dependent")},
        {"optimizer": lambda parameters, grad, scale, rate: None},
        {"dtype": torch.float64},
        {"kind": Halved},
        {"network": partial(MLP, hidden=(1024, 1024))},
    ],
)
def test_what_is_not_compiled_is_left_to_the_agent(options: dict[str, Any]) -> None:
    usual = {"network": partial(MLP, hidden=(8,)), "dtype": torch.float32}
    assert native.fits(make_awr(**usual))
    assert native.fits(make_awr(**usual, optimizer=partial(optimizers.momentum)))
    assert not native.fits(make_awr(**(usual | options)))
    # An entry that there is no choice of is no part of a loss.
    assert not native.fits(make_awr(Spec(3, 2, None, (-1.0, 0.5), (1.0, 0.5)), **usual))


def test_what_cannot_be_compiled_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main( {}")
    monkeypatch.setattr(native_library, "SOURCE", broken)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert native_library.library.__wrapped__() is None
    (record,) = caplog.records
    assert "going on without: " in record.message
    assert "\n" not in record.message
    assert list((tmp_path / "cache" / "awr_exp" / "native").iterdir()) == []


def test_the_compiled_library_is_kept_and_made_again_where_it_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_library, "FLAGS", [flag.replace("-O3", "-O0") for flag in native_library.FLAGS])
    first, second = (tmp_path / name / "awr_exp" / "native" for name in ("first", "second"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    assert native_library.library.__wrapped__() is not None
    (kept,) = first.iterdir()
    made = kept.stat().st_mtime_ns
    assert native_library.library.__wrapped__() is not None
    assert kept.stat().st_mtime_ns == made
    second.mkdir(mode=0o700, parents=True)
    # To load this would end the process.
    (second / kept.name).write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    assert native_library.library.__wrapped__() is not None
    (again,) = second.iterdir()
    assert again.stat().st_size == kept.stat().st_size


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "FLAGS", [flag.replace("-O3", "-O0") for flag in native_library.FLAGS])
    (tmp_path / "file").touch()
    shared = tmp_path / "shared" / "awr_exp" / "native"
    shared.mkdir(parents=True)
    shared.chmod(0o777)
    for place in ("file", "shared"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
        assert native_library.library.__wrapped__() is not None
    assert list(shared.iterdir()) == []


def online(folder: Path, **options: Any) -> Online:
    schedule = schedules.Phased(samples_per_iteration=60, critic_steps=5, actor_steps=7, normalizer_samples=280)
    spec = Spec(3, 1, None, (-2.0,), (2.0,))
    agent = make_awr(spec, [0], network=partial(MLP, hidden=(8,)), dtype=torch.float32)
    return Online(
        agent, partial(gymnasium.make, "Pendulum-v1"), schedule, runs=[Run(folder, logger=Jsonl(folder))],
        **({
            "env_steps": 300, "envs": 3, "workers": 0, "replay_size": 240, "batch_size": 16, "report_interval": 100,
            "eval_interval": 150, "eval_episodes": 1, "checkpoint_interval": 100, "compile": True,
        } | options),
    )  # fmt: skip


def test_a_run_takes_them_and_is_resumed_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What follows must not come from the other way of compiling.
    monkeypatch.setattr(torch, "compile", None)
    whole = online(tmp_path / "a")
    assert whole.learners[0].functions["actor"].func is native.actor_steps  # type: ignore[attr-defined]
    whole.run()
    online(tmp_path / "b", env_steps=240).run()
    resumed = online(tmp_path / "b")
    resumed.resume()
    resumed.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(resumed.agent.state_dict()[name], tensor), name
    plain = online(tmp_path / "c", compile=False)
    plain.run()
    for name, tensor in plain.agent.state_dict().items():
        assert_close(whole.agent.state_dict()[name], tensor, rtol=1e-2, atol=1e-3)
    losses = [[row["value"] for row in read(tmp_path / run) if row["name"] == "train/actor_loss"] for run in "ac"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def own_weighting(advantage: Tensor, beta: Tensor, max_weight: Tensor) -> Tensor:
    """Somebody's own, which takes advantages [K, B] and nothing else."""
    members, _ = advantage.shape
    return (advantage / beta.view(members, 1)).sigmoid()


AGENTS: dict[str, Callable[[], Agent]] = {
    "td": lambda: small_awr(advantage=LambdaReturn(0.0), standardize_advantages=True),
    "td_lambda": lambda: small_awr(advantage=LambdaReturn(0.9), normalize_values=True, ema_decay=0.9),
    "rwr": lambda: small_awr(RWR, advantage=LambdaReturn(0.9), weighting=weights.normalized),
    "own weighting": lambda: small_awr(weighting=own_weighting),
    "a weighting with state": lambda: small_awr(weighting=ExpRunningScale(0.1)),
    "cloning": lambda: BC(CONTINUOUS, partial(MLP, hidden=(20, 33)), GAUSSIAN, [3, 4], actor_iters=2),
}


def small_awr(kind: Any = AWR, **options: Any) -> AWR:
    given = {
        "advantage": LambdaReturn(0.0),
        "weighting": weights.exp_clip,
        "beta": [0.5, 2.0],
        "value_iters": 3,
    } | options
    return kind(CONTINUOUS, partial(MLP, hidden=(20, 33)), heads.Gaussian, [3, 4], actor_iters=2, **given)


@pytest.mark.parametrize("collected", [False, True])
@pytest.mark.parametrize("name", AGENTS)
def test_whole_updates_are_the_agents_own(name: str, collected: bool) -> None:
    plain, compiled = AGENTS[name](), AGENTS[name]()
    experience: Any = random_data()
    if collected:
        experience = Replay(CONTINUOUS, 2, 2, 200)
        data = random_batch(CONTINUOUS, 2, 200, dtype=torch.float32)
        parts = {key: value.unflatten(1, (100, 2)) for key, value in vars(data).items() if value is not None}
        experience.extend(type(data)(**parts))
    assert native.fits(compiled)
    g = torch.Generator().manual_seed(0)
    for _ in range(2):
        rows = torch.randint(100, (5, 2, 32), generator=g)
        given = [torch.randn(2, experience.capacity, generator=g)] if plain.whole_episodes else []
        take = experience.take if collected else experience.sample
        metrics = [plain.update(take(own, target=given[0] if given else None)) for own in rows]
        found: list[Metrics] = []
        native.updates(compiled, experience, SimpleNamespace(add_each=found.append), rows, NONE, *given)
        (each,) = found
        for number, here in enumerate(metrics):
            assert here.keys() == each.keys()
            for key, value in here.items():
                assert_close(each[key][number], value, rtol=1e-3, atol=1e-4, msg=key)
        for key, tensor in plain.state_dict().items():
            assert_close(compiled.state_dict()[key], tensor, rtol=1e-3, atol=1e-4, msg=key)


def test_a_run_on_a_data_set_in_cpp_stops_where_it_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through every interval, and from a checkpoint that lies between them, to the bit."""
    monkeypatch.setattr(steps, "WORTHWHILE", 1)

    def begun(folder: str, **options: Any) -> Offline:
        own = AGENTS["td_lambda"]().shard(slice(0, 1))
        return offline([tmp_path / folder], own, compile="auto", report_interval=7, refresh_interval=20, **options)

    whole = begun("whole")
    assert whole.learners[0].functions["batch"].func is native.updates  # type: ignore[attr-defined]
    whole.run()
    begun("cut", updates=33).run()
    second = begun("cut")
    second.resume()
    second.run()
    for name, tensor in whole.agent.state_dict().items():
        assert torch.equal(second.agent.state_dict()[name], tensor), name
    rows = [[row for row in read(tmp_path / name) if row["update"] > 35] for name in ("whole", "cut")]
    assert [row for row in rows[0] if "per_second" not in row["name"]] == [
        row for row in rows[1] if "per_second" not in row["name"]
    ]
