"""Fitted Q evaluation against exact solutions of small Markov chains, and as a part of runs."""

import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from awr_exp import results
from awr_exp.building.build import build
from awr_exp.building.stacking import stack
from awr_exp.data.episodes import from_episodes
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.metadata import policy_metadata
from awr_exp.networks.mlp import MLP
from awr_exp.report import runs
from awr_exp.training import fqe, team
from awr_exp.training.fitted_q import NEWTON_STEPS, FittedQ, first_rows
from awr_exp.training.fqe import bootstrap
from awr_exp.training.run import Run
from awr_exp.training.trainer import Trainer
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, Cli, composed, train
from tests.test_contract import OFFLINE, Rows, configuration, data_set, shrink

STATES, ACTIONS = 5, 2
CHAIN = Spec(obs_dim=STATES, num_actions=ACTIONS)
NETWORK = partial(MLP, hidden=(32,), output_scale=0.01)
POLICIES = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]])


@dataclass
class Table:
    """Acts by a table [K, STATES] of actions."""

    actions: Tensor

    def act(self, obs: Tensor) -> Tensor:
        return self.actions.gather(1, obs.argmax(-1))


def chain(terminates: bool, seed: int = 0, episodes: int = 150, actions: int = ACTIONS) -> Transitions:
    """Episodes of a random chain under even ones of its first actions; its last state is an end, or as others are."""
    rng = np.random.default_rng(seed)
    after = rng.dirichlet(np.full(STATES, 0.5), (STATES, ACTIONS))
    reward = rng.normal(-3, 2, (STATES, ACTIONS))
    found = []
    for _ in range(episodes):
        seen, taken, rewards, ended = [int(rng.integers(STATES - 1))], [], [], False
        while len(taken) < 15 and not ended:
            taken.append(int(rng.integers(actions)))
            rewards.append(reward[seen[-1], taken[-1]])
            seen.append(int(rng.choice(STATES, p=after[seen[-1], taken[-1]])))
            ended = terminates and seen[-1] == STATES - 1
        obs = np.eye(STATES, dtype=np.float32)[seen]
        found.append({"observations": obs, "actions": taken, "rewards": rewards, "terminated": ended})
    return from_episodes("chain", CHAIN, found)


def exact(data: Transitions, policy: Tensor, gamma: float) -> Tensor:
    """Q [STATES, ACTIONS] of the chain that the data are samples of as often as they say, by linear algebra."""
    batch = data.sample(torch.arange(len(data)).unsqueeze(0))
    row = batch.obs[0].argmax(-1) * ACTIONS + batch.action[0]
    after = batch.next_obs[0].argmax(-1)
    count = torch.zeros(STATES * ACTIONS).index_add(0, row, torch.ones(len(data))).double().clamp(min=1)
    step = torch.zeros(STATES * ACTIONS, STATES * ACTIONS, dtype=torch.float64)
    step.index_put_((row, after * ACTIONS + policy[after]), (~batch.terminated[0]).double(), accumulate=True)
    reward = torch.zeros(STATES * ACTIONS, dtype=torch.float64).index_add(0, row, batch.reward[0].double())
    matrix = torch.eye(len(count), dtype=torch.float64) - gamma * step / count.unsqueeze(1)
    return torch.linalg.solve(matrix, reward / count).view(STATES, ACTIONS)


def fitted(
    data: Transitions, policies: Tensor, gamma: Any, updates: int, seeds: Any = (0, 1), **options: Any
) -> FittedQ:
    q = FittedQ(CHAIN, NETWORK, seeds, gamma, **({"lr": 3e-3, "dtype": torch.float64} | options))
    q.begin(data, Table(policies))
    learn(q, data, updates)
    return q


def learn(q: FittedQ, data: Transitions, updates: int) -> None:
    generators = [torch.Generator().manual_seed(seed) for seed in q.seeds]
    for _ in range(updates):
        rows = torch.stack([torch.randint(len(data), (128,), generator=own) for own in generators])
        q.update(q.sample(data, rows))


def at_starts(data: Transitions, q: Tensor, policy: Tensor) -> Tensor:
    """Q(s, pi(s)) of the first state of each episode."""
    first = data.sample(first_rows(data).unsqueeze(0)).obs[0].argmax(-1)
    return q[first, policy[first]]


def test_no_estimate_is_beyond_what_a_return_can_be() -> None:
    """Policies of an action that the data do not have, so that Q of it is a guess, which each update builds on."""
    data, gamma = chain(True, actions=1), torch.tensor([[0.9], [0.99]])
    found = fitted(data, torch.ones_like(POLICIES), gamma, 100, lr=0.5, target_rate=0.5).estimate(data)
    lowest = data.reward.min() / (1 - gamma.double())
    assert bool((found.value <= data.reward.max().clamp(min=0) / (1 - gamma)).all())
    assert bool((found.value >= lowest).all())
    assert bool((found.recorded >= lowest).all())


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_the_level_is_where_the_mean_bellman_error_is_0(seed: int, spread: float) -> None:
    data, g = chain(True, episodes=5), torch.Generator().manual_seed(seed)
    q = fitted(data, POLICIES, 0.99, 0)
    reward, now, after = spread * torch.randn(3, 2, 50, generator=g, dtype=torch.float64)
    discount = 0.99 * (torch.rand(2, 50, generator=g) > 0.1)
    q.ends, level = (1 - discount).mean(-1, keepdim=True), torch.zeros(2, 1, dtype=torch.float64)
    for _ in range(NEWTON_STEPS):
        level = level + q.off(level, reward, discount, now, after)
    error = (reward + discount * q.possible(after + level) - now - level).mean(-1)
    assert_close(error, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-6 * spread)


@pytest.mark.parametrize("terminates", [False, True])
def test_the_estimate_is_the_exact_solution_of_the_chain(terminates: bool) -> None:
    data, gamma = chain(terminates), 0.95
    found = fitted(data, POLICIES, gamma, 300).estimate(data)
    truth = torch.stack([at_starts(data, exact(data, policy, gamma), policy) for policy in POLICIES])
    assert_close(found.value.mean(1), truth.mean(1), rtol=0.03, atol=0)
    assert (found.value - truth).abs().max() < 0.05 * truth.abs().mean()
    # Neither policy is as good as the other, or as uniform actions.
    values = torch.cat([truth.mean(1), found.recorded.mean().unsqueeze(0)]).sort().values
    assert (values.diff() > 0.03 * values.abs().max()).all()


def test_without_a_future_it_is_the_reward_of_the_policy_s_action() -> None:
    data = chain(terminates=False)
    found = fitted(data, POLICIES, 0.0, 200, lr=1e-2).estimate(data)
    for member, policy in enumerate(POLICIES):
        truth = at_starts(data, exact(data, policy, 0.0), policy)
        assert_close(found.value[member], truth, rtol=0.02, atol=0.05)


def test_policies_are_evaluated_together_as_each_alone() -> None:
    data, gammas = chain(terminates=True), [0.5, 0.9]
    together = fitted(data, POLICIES, gammas, 20).estimate(data)
    for member in range(2):
        own = slice(member, member + 1)
        alone = fitted(data, POLICIES[own], gammas[member], 20, seeds=(member,)).estimate(data)
        for name, value in vars(alone).items():
            assert_close(getattr(together, name)[own], value, msg=name)


@pytest.mark.parametrize(("terminated", "worth"), [(True, 1.0), (False, 10.0)])
def test_an_end_of_the_task_is_told_from_a_cut(terminated: bool, worth: float) -> None:
    step = {"observations": np.eye(STATES)[[0, 0]], "actions": [0], "rewards": [1.0], "terminated": terminated}
    data = from_episodes("one", CHAIN, [step])
    found = fitted(data, POLICIES * 0, 0.9, 1).estimate(data)
    assert_close(found.value, torch.full_like(found.value, worth))
    assert_close(found.recorded, found.value)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    values = torch.randn(400, 60, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap(values)
    assert (low < values.mean(1)).all()
    assert (values.mean(1) < high).all()
    assert 0.9 < ((low < 0) & (high > 0)).float().mean() < 0.98


def made(folder: Path, gammas: Sequence[float] = (0.9, 0.5), **options: Any) -> Trainer:
    """A trainer of two policies with these discounts."""
    cfgs = [configuration(OFFLINE, "evaluate=fqe", f"agent.gamma={gamma}") for gamma in gammas]
    agent = build(stack([cfg["agent"] for cfg in cfgs]), spec=CONTINUOUS, seeds=[0, 1])
    metadata = policy_metadata(CONTINUOUS, cfgs[0]["agent"])
    runs = [
        Run(folder / str(number), config=cfg, metadata=dict(metadata), logger=Rows()) for number, cfg in enumerate(cfgs)
    ]
    shrink(cfgs[0]["evaluate"]["network"])
    part = build(cfgs[0]["evaluate"] | {"updates": 8, "batch_size": 8} | options)
    return build(cfgs[0]["trainer"], agent=agent, make_env=None, data=data_set(CONTINUOUS), runs=runs, callbacks=[part])


def test_a_run_that_is_stopped_while_it_evaluates_does_so_again_once_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(tmp_path / "whole")
    whole.run()
    assert [run.latest["fqe/gamma"] for run in whole.runs] == [0.9, 0.5]
    estimate = FittedQ.estimate

    def stopped(self: FittedQ, data: Transitions) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return estimate(self, data)

    monkeypatch.setattr(FittedQ, "estimate", stopped)
    with pytest.raises(SystemExit):
        made(tmp_path / "stopped").run()
    monkeypatch.undo()
    again = made(tmp_path / "stopped")
    again.resume()
    assert again.step == again.total
    assert "fqe/return_mean" not in again.runs[0].latest
    again.run()
    for before, after in zip(whole.runs, again.runs, strict=True):
        wanted = {name: value for name, value in before.latest.items() if name.startswith("fqe/")}
        assert len(wanted) == 7
        assert wanted == {name: after.latest[name] for name in wanted}


def test_members_are_evaluated_in_parts_that_fit_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainers = []
    for name, size in (("whole", team.CACHE), ("parts", 1)):
        monkeypatch.setattr(team, "CACHE", size)
        trainers.append(made(tmp_path / name))
        trainers[-1].run()
    for whole, part in zip(*(trainer.runs for trainer in trainers), strict=True):
        assert part.latest["fqe/return_mean"] == pytest.approx(whole.latest["fqe/return_mean"], rel=1e-4)


def test_a_given_discount_is_everybody_s_and_one_below_1_is_needed(tmp_path: Path) -> None:
    trainer = made(tmp_path, gamma=0.8)
    trainer.run()
    assert [run.latest["fqe/gamma"] for run in trainer.runs] == [0.8, 0.8]
    endless = made(tmp_path / "endless", [0.9, 1])
    with pytest.raises(UserError, match=r"needs a discount below 1: give evaluate\.gamma"):
        endless.run()


@pytest.mark.parametrize(("moves", "named"), [(0.0, True), (1e6, False)])
def test_an_estimate_that_still_moves_is_named(
    moves: float, named: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fqe, "MOVES", moves)
    made(tmp_path).run()
    assert ("in the second half of its updates: give more evaluate.updates" in caplog.text) == named


def test_returns_are_in_units_of_the_data_and_an_objective(tmp_path: Path, datasets: Path) -> None:
    small = ["agent=bc", "env=none", "logger=jsonl", "network.hidden=[8]", "threads=1", "dataset.max_transitions=300"]
    few = ["trainer.updates=4", "trainer.batch_size=8", "evaluate=fqe", "evaluate.updates=4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(datasets))
        plain, scaled = (
            train([composed(*small, *few, *unit)], [tmp_path / unit[0]])[0].metrics
            for unit in (["dataset.reward_scale=1"], ["dataset.reward_scale=0.01", "dataset.reward_shift=-3"])
        )
    assert plain["fqe/gamma"] == 0.99
    for name in ("return_mean", "return_low", "return_high", "data_return", "bellman_error"):
        assert scaled[f"fqe/{name}"] == pytest.approx(plain[f"fqe/{name}"], rel=1e-4)
    assert plain["fqe/return_low"] <= plain["fqe/return_mean"] <= plain["fqe/return_high"]


def test_a_finished_run_is_evaluated_without_training_again(finished: Path, cli: Cli) -> None:
    before = results.read(finished)
    done = cli(f"resume={finished}", "evaluate=fqe", "evaluate.updates=20")
    assert done.returncode == 0, done.stdout
    after = results.read(finished)
    assert (after.status, after.update) == (before.status, before.update)
    assert after.metrics["eval/return_mean"] == before.metrics["eval/return_mean"]
    estimate = after.metrics["fqe/return_mean"]
    assert "estimate, discounted by 0.99" in done.stdout
    assert f"{estimate:.1f} (" in done.stdout
    # It is the same method, whatever it was judged by.
    assert runs.read(finished).last("fqe/return_mean") == estimate


REFUSED = {
    (
        "trainer=online",
        "env=cartpole",
        "evaluate=fqe",
    ): "evaluate=fqe has no effect, since trainer=online has no data set",
    ("evaluate=fqe", "evaluate.gamma=1"): "evaluate.gamma is 1; it must be a number of at least 0 and below 1, or null",
    ("evaluate=fqe", "evaluate.updates=0"): "evaluate.updates is 0; it must be a whole number of at least 1",
    ("evaluate=fqe", "evaluate.target_rate=2"): "evaluate.target_rate is 2; it must be a number from 0 to 1",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(overrides: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=re.escape(REFUSED[overrides])):
        composed(*overrides)
