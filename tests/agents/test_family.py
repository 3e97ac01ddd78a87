"""The family beside AWR and IQL: each method's own equation, and that all of them find a known optimum."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from awr_exp import config
from awr_exp.agents.agent import Agent
from awr_exp.agents.awac import AWAC
from awr_exp.agents.bc_top import BCTop
from awr_exp.agents.best_of import BestOf
from awr_exp.agents.cal_ql import CalQL
from awr_exp.agents.cql import CQL
from awr_exp.agents.crr import CRR
from awr_exp.agents.members import BLOCK
from awr_exp.agents.rebrac import ReBRAC
from awr_exp.agents.sac import SAC
from awr_exp.agents.td3 import TD3
from awr_exp.agents.td3_awr import TD3AWR
from awr_exp.agents.td3_bc import TD3BC
from awr_exp.building.build import build
from awr_exp.data.builtin import cartpole_mixed
from awr_exp.data.episodes import from_episodes
from awr_exp.data.replay import Replay
from awr_exp.data.selection import select
from awr_exp.data.transitions import Transitions
from awr_exp.errors import UserError
from awr_exp.math import weights
from awr_exp.networks import heads
from awr_exp.networks.deterministic import Deterministic
from awr_exp.networks.mixture import Mixture
from awr_exp.types import Batch, Spec
from tests.conftest import CONTINUOUS, DISCRETE, NETWORK, batch_for, composed

BOX = Spec(obs_dim=1, action_dim=1, action_low=(-1.0,), action_high=(1.0,))
ARMS = Spec(obs_dim=1, num_actions=3)


def made(kind: Any, spec: Spec = CONTINUOUS, head: Any = None, seeds: Sequence[int] = (0, 1), **options: Any) -> Any:
    parts: dict[str, Any] = {"weighting": weights.exp_clip} if issubclass(kind, AWAC | TD3AWR) else {}
    head = head or (Deterministic if issubclass(kind, TD3BC | ReBRAC | TD3AWR) else heads.auto_squashed)
    if issubclass(kind, TD3):
        parts |= {"ema_decay": 0.9}
    return kind(spec, NETWORK, head, list(seeds), **({"dtype": torch.float64} | parts | options))


def test_the_best_episodes_are_those_of_a_data_set_that_is_cut_to_them(datasets: None) -> None:
    data = cartpole_mixed()
    agent = made(BCTop, data.spec, heads.auto, top_percent=[10.0, 3.0])
    chosen = agent.targets(data)["target"]
    for member, percent in enumerate((10.0, 3.0)):
        best = select(data, percent)
        rows = data.sample(torch.arange(len(data)).unsqueeze(0)).obs[0][chosen[member] == 1]
        assert_close(rows, best.sample(torch.arange(len(best)).unsqueeze(0)).obs[0])
    batch = replace(batch_for(agent, 16), target=chosen[:, :16])
    assert torch.equal(agent.weights(agent.advantage(batch)), chosen[:, :16])


@pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE])
def test_the_advantage_of_awac_is_beside_what_the_policy_draws(spec: Spec) -> None:
    agent = made(AWAC, spec, heads.auto, samples=3)
    batch = batch_for(agent, 6)
    drawn = agent.noise(batch, "here").unflatten(-1, (3, -1))
    q = [
        agent.smallest_q(
            batch.obs, agent.q.module.as_inputs.inside(agent.policy.act(agent.actor.theta, batch.obs, one))
        )
        for one in drawn.unbind(2)
    ]
    expected = agent.smallest_q(batch.obs, batch.action) - torch.stack(q).mean(0)
    assert_close(agent.advantage(batch), expected)
    best = made(CRR, spec, heads.auto, samples=3, estimate="max")
    assert_close(best.advantage(batch), agent.smallest_q(batch.obs, batch.action) - torch.stack(q).amax(0))


def test_q_follows_the_reward_and_the_slow_q_of_what_the_policy_does_next() -> None:
    agent = made(AWAC, gamma=0.9)
    batch = batch_for(agent, 6)
    action = agent.policy.act(agent.actor.theta, batch.next_obs, agent.noise(batch, "next"))
    target = batch.reward + 0.9 * ~batch.terminated * agent.slow_q(batch.next_obs, action)
    qs = agent.q.module(agent.q.theta, batch.obs, batch.action)
    before = agent.q.theta.clone()
    assert_close(agent.critic_update(batch)["q_loss"], (qs - target.unsqueeze(1)).square().mean(-1).sum(-1))
    assert_close(agent.q.average, before + 0.005 * (agent.q.theta - before))


def test_td3_bc_weighs_the_error_of_an_entry_against_q_in_units_of_its_size() -> None:
    agent = made(TD3BC, alpha=2.0)
    batch = batch_for(agent, 6)
    action = agent.policy.act(agent.actor.theta, batch.obs)
    q = agent.smallest_q(batch.obs, action)
    error = ((action - batch.action) / torch.tensor([1.0, 3.0])).square().mean(-1).mean(-1)
    loss, report = agent.actor_loss(agent.actor.theta, batch, torch.ones_like(batch.reward))
    # Divided by alpha, which is nothing to Adam.
    assert_close(loss, error / 2 - q.mean(-1) / q.abs().mean(-1))
    assert_close(report["policy_q"], q.mean(-1))


def test_the_next_action_of_td3_is_the_slow_policys_with_noise_that_is_cut_off() -> None:
    agent = made(TD3BC, ema_decay=0.9, policy_noise=0.5, noise_clip=0.3)
    agent.update(batch_for(agent, 6))
    batch = batch_for(agent, 200, seed=3)
    noise = (0.5 * agent.noise(batch, "next")).clamp(-0.3, 0.3) * torch.tensor([1.0, 3.0])
    action = agent.policy.act(agent.actor.average, batch.next_obs)
    assert_close(agent.next_action(batch), agent.q.module.as_inputs.inside(action + noise))
    assert not torch.allclose(action, agent.policy.act(agent.actor.theta, batch.next_obs))
    far = made(TD3BC, policy_noise=9.0, noise_clip=9.0).next_action(batch)
    low, high = (torch.tensor(bound, dtype=far.dtype) for bound in (CONTINUOUS.action_low, CONTINUOUS.action_high))
    assert ((far >= low) & (far <= high)).all()


@pytest.mark.parametrize("kind", [ReBRAC, TD3AWR])
def test_the_distance_of_the_next_action_is_taken_off_where_it_is_known(kind: Any) -> None:
    found = []
    for coefficient in (0.0, 0.5):
        agent = made(kind, critic_bc_coef=coefficient)
        batch = batch_for(agent, 40)
        found.append(agent)
    plain, penalised = (TD3Target(agent).of(batch) for agent in found)
    away = (found[0].next_action(batch) - batch.next_action) / torch.tensor([1.0, 3.0])
    known = ~(batch.terminated | batch.truncated)
    assert_close(plain - penalised, 0.99 * 0.5 * known * away.square().sum(-1))
    assert 0 < known.double().mean() < 1


class TD3Target:
    """What an agent's Q is taught."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def of(self, batch: Batch) -> torch.Tensor:
        seen: list[torch.Tensor] = []
        own = self.agent.q_error  # type: ignore[attr-defined]
        self.agent.q_error = lambda qs, target: (seen.append(target), own(qs, target))[1]  # type: ignore[attr-defined]
        self.agent.critic_update(batch)
        return seen[0]


def test_td3_awr_climbs_q_beside_a_regression_with_the_weights_of_iql() -> None:
    agent = made(TD3AWR, bc_coef=0.3, beta=0.5, max_weight=4.0)
    batch = batch_for(agent, 6)
    weight = agent.weights(agent.advantage(batch))
    value = agent.value(batch.obs, agent.critic.theta)
    expected = ((agent.slow_q(batch.obs, batch.action) - value) / 0.5).exp().clamp(max=4.0)
    assert_close(weight, expected)
    action = agent.policy.act(agent.actor.theta, batch.obs)
    error = ((action - batch.action) / torch.tensor([1.0, 3.0])).square().sum(-1)
    q = agent.smallest_q(batch.obs, action)
    loss, _ = agent.actor_loss(agent.actor.theta, batch, weight)
    assert_close(loss, 0.3 * (weight * error).mean(-1) - q.mean(-1) / q.abs().mean(-1))


def test_means_over_discrete_actions_are_exact() -> None:
    agent = made(SAC, DISCRETE)
    batch = batch_for(agent, 5)
    log_prob = agent.policy._head_inputs(agent.actor.theta, batch.obs)[0].log_softmax(-1)
    every = [torch.full((2, 5), action) for action in range(4)]
    q = torch.stack([agent.smallest_q(batch.obs, action) for action in every], -1)
    loss, report = agent.actor_loss(agent.actor.theta, batch, batch.reward)
    assert_close(loss, (log_prob.exp() * (log_prob - q)).sum(-1).mean(-1))
    assert_close(report["entropy"], -(log_prob.exp() * log_prob).sum(-1).mean(-1))
    pressed = made(CQL, DISCRETE).log_sum_exp(agent.q.theta, batch)
    qs = torch.stack([agent.q.module(agent.q.theta, batch.obs, action) for action in every], -1)
    assert_close(pressed, qs.logsumexp(-1))


def test_the_integral_of_a_q_that_is_constant_is_that_times_the_volume() -> None:
    agent = made(CQL, samples=2_000, seeds=[0])
    agent.q.module.of_each = lambda theta, obs, actions: torch.full((1, 2, *actions.shape[1:3]), 1.5).double()
    found = agent.log_sum_exp(agent.q.theta, batch_for(agent, 3))
    # The actions' bounds are 2 and 6 apart.
    assert_close(found, torch.full_like(found, 1.5 + math.log(2 * 6)), rtol=0.05, atol=0)


def test_the_temperature_rises_while_the_entropy_is_below_its_target() -> None:
    for target, sign in ((50.0, 1), (-50.0, -1)):
        agent = made(SAC, target_entropy=target)
        for seed in range(3):
            agent.update(batch_for(agent, 8, seed))
        assert (sign * agent.temperature.theta > 0).all()


def test_how_much_a_policy_is_to_vary_follows_the_units_of_actions() -> None:
    wide, narrow = (replace(CONTINUOUS, action_low=(-unit,) * 2, action_high=(unit,) * 2) for unit in (1.0, 0.1))
    found = [made(SAC, spec).target_entropy for spec in (wide, narrow)]
    assert_close(found[0], torch.full_like(found[0], -2.0))
    assert_close(found[0] - found[1], torch.full_like(found[0], 2 * math.log(10)))


def test_q_is_never_asked_about_actions_that_no_environment_takes() -> None:
    spec = replace(CONTINUOUS, action_low=(-1.0, 0.5), action_high=(1.0, 0.5))
    for kind, head in ((CQL, heads.auto_squashed), (CalQL, heads.auto)):
        agent = made(kind, spec, head)
        asked: list[torch.Tensor] = []
        own = agent.q.module.of_each
        agent.q.module.of_each = lambda theta, obs, actions, own=own, asked=asked: (
            asked.append(actions), own(theta, obs, actions))[1]  # fmt: skip
        agent.update(replace(batch_for(agent, 64), target=torch.zeros(2, 64).double()))
        assert len(asked) == 3
        for actions in asked:
            assert actions[..., 0].abs().max() <= 1
            assert (actions[..., 1] == 0.5).all()


def test_cal_ql_presses_q_down_to_the_returns_and_no_further() -> None:
    cql, calibrated = made(CQL), made(CalQL)
    batch = batch_for(cql, 6)
    low, high = (replace(batch, target=torch.full_like(batch.reward, value)) for value in (-1e6, 7.0))
    theta = cql.q.theta
    assert_close(calibrated.log_sum_exp(theta, low), cql.log_sum_exp(theta, low))
    assert (calibrated.log_sum_exp(theta, high) > cql.log_sum_exp(theta, high)).all()
    # The returns of the last rows are the rewards alone.
    data = from_episodes("two", CONTINUOUS, [episode(3, terminated=True), episode(2, terminated=False)])
    target = made(CalQL, gamma=0.5).targets(data)["target"]
    assert_close(target[:, :3], torch.tensor([1 + 0.5 + 0.25, 1.5, 1.0]).double().expand(2, -1))
    assert not torch.allclose(target[:, 4], torch.ones(2).double())


def episode(steps: int, terminated: bool) -> dict[str, Any]:
    rng = np.random.default_rng(steps)
    return {
        "observations": rng.normal(size=(steps + 1, 3)),
        "actions": rng.uniform(-1, 1, (steps, 2)),
        "rewards": np.ones(steps),
        "terminated": terminated,
    }


def test_what_was_done_next_is_in_the_row_below_and_nowhere_at_an_end() -> None:
    data = from_episodes("two", CONTINUOUS, [episode(3, terminated=True), episode(4, terminated=False)])
    rows = torch.arange(7).unsqueeze(0)
    batch = data.sample(rows, True)
    known = ~(batch.terminated | batch.truncated)[0]
    assert known.tolist() == [True, True, False, True, True, True, False]
    assert batch.next_action is not None
    assert torch.equal(batch.next_action[0, known], batch.action[0].roll(-1, 0)[known])
    assert data.sample(rows).next_action is None


def test_a_replay_knows_what_was_done_next_but_for_the_newest_steps() -> None:
    replay = Replay(CONTINUOUS, members=2, envs=2, capacity=8)
    for step in range(6):
        action = torch.full((2, 1, 2, 2), float(step)) + torch.tensor([0.0, 0.1]).view(1, 1, 2, 1)
        zeros, no = torch.zeros(2, 1, 2), torch.zeros(2, 1, 2, dtype=torch.bool)
        obs = torch.zeros(2, 1, 2, 3)
        replay.extend(Batch(obs, action, zeros, obs, no, no))
    batch = replay.sample(torch.arange(8).unsqueeze(0), True)
    assert batch.next_action is not None
    known = ~batch.truncated[0]
    # Four steps of each of two environments are left, the newest of which is the last.
    assert known.tolist() == [True, True, True, False] * 2
    assert_close(batch.next_action[0, known], batch.action[0, known] + 1)
    assert not replay.sample(torch.arange(8).unsqueeze(0)).truncated.any()


@pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE])
def test_the_best_of_several_samples_is_the_one_that_q_finds_best(spec: Spec) -> None:
    agent = made(AWAC, spec, heads.auto)
    agent.update(batch_for(agent, 8))
    obs = torch.randn(2, 5, 3).double()
    best = BestOf(agent.averaged(), 16, "evaluation", 3)
    chosen = BestOf(agent.averaged(), 16, "evaluation", 3).act(obs)
    assert torch.equal(chosen[1:], best.shard(slice(1, 2)).act(obs[1:]))
    # However many rows come at once, each has draws of its own.
    many = torch.randn(2, 3 * BLOCK + 5, 3).double()
    parts = BestOf(agent.averaged(), 2, "all")
    whole = BestOf(agent.averaged(), 2, "all").act(many)
    assert torch.equal(torch.cat([parts.act(many[:, :BLOCK]), parts.act(many[:, BLOCK:])], 1), whole)
    drawn = [agent.act(obs, torch.randn(2, 5, agent.policy.head.noise).double()) for _ in range(3_000)]
    q = torch.stack([agent.slow_q(agent.normalize(obs), agent.q.module.as_inputs.inside(one)) for one in drawn])
    # Hardly any of many draws is better, and the mean one is worse.
    found = agent.slow_q(agent.normalize(obs), chosen)
    assert (found >= q.mean(0)).all()
    assert (q > found).double().mean() < 0.15


def test_what_needs_a_q_a_gradient_or_a_density_says_so() -> None:
    bc = build(composed("agent=bc")["agent"], spec=CONTINUOUS, seeds=[0])
    said = {
        "needs an agent with a Q to judge actions by, and BC has none": lambda: BestOf(bc, 32),
        "TD3BC climbs Q along the policy's actions.*head=Mixture: choose head=det": lambda: made(TD3BC, head=Mixture),
        "ema_decay is 0, but .* slow policy of the targets: try 0.995": lambda: made(TD3BC, ema_decay=[0.9, 0.0]),
        "TD3AWR needs continuous actions.*such as agent=iql": lambda: made(TD3AWR, DISCRETE, heads.auto),
        "head=Deterministic lacks a density or a gradient": lambda: made(CQL, head=Deterministic),
        "agent.ensemble is 0; it must be a whole number": lambda: made(AWAC, ensemble=0),
        "this agent samples: give Batch.noise": lambda: _without_noise(made(AWAC)),
    }
    for wanted, action in said.items():
        with pytest.raises((UserError, ValueError), match=wanted):
            action()


def _without_noise(agent: Agent) -> None:
    agent.update(replace(batch_for(agent, 4), noise=None))


def bandit(spec: Spec) -> Transitions:
    """One step from anywhere: of actions from -1 to 1 that at 0.5 is best, and of three the last; all are as likely."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(600):
        action = rng.integers(3) if spec.discrete else rng.uniform(-1, 1, 1)
        reward = float(action == 2) if spec.discrete else float(1 - (action[0] - 0.5) ** 2)
        found.append(
            {"observations": rng.normal(size=(2, 1)), "actions": [action], "rewards": [reward], "terminated": True}
        )
    return from_episodes("bandit", spec, found)


OWN_CRITIC = ("awac", "crr", "cql", "cal_ql")
"""Agents with code of their own for discrete actions; the others are tried on these by slow tests."""
NEARLY_ANOTHER = ("rebrac", "cal_ql", "td3_awr")
"""Agents that add one term, which has a test of its own, to the loss of another agent: they learn in slow tests."""
LEARNS = [
    pytest.param(
        agent,
        spec,
        id=f"{agent}-{'discrete' if spec.discrete else 'continuous'}",
        marks=pytest.mark.slow
        if agent in NEARLY_ANOTHER or (spec.discrete and agent not in OWN_CRITIC)
        else pytest.mark.long
        if agent in ("cql", "td3_bc", "marwil", "bc_top") or spec.discrete
        else (),
    )
    for agent in config.options("agent")
    for spec in (BOX, ARMS)
    if agent != "bc" and not (spec.discrete and agent in ("td3_bc", "rebrac", "td3_awr"))
]


@pytest.mark.parametrize(("agent", "spec"), LEARNS)
def test_every_agent_finds_the_best_arm(agent: str, spec: Spec) -> None:
    cfg = composed(f"agent={agent}")["agent"]
    small = {"beta": 0.1, "actor_lr": 3e-3, "critic_lr": 3e-3, "ema_decay": 0.95, "top_percent": 20.0, "samples": 4}
    small |= {
        "value_iters": 2 if agent.startswith("td3") else 1,
        "alpha": 1.0 if agent.startswith("c") else 10.0,
        "standardize_advantages": False,
    }
    cfg |= {name: value for name, value in small.items() if name in cfg}
    cfg["network"] |= {"hidden": [32, 32]}
    learner, data = build(cfg, spec=spec, seeds=[0]), bandit(spec)
    columns = learner.targets(data) if learner.whole_episodes else {}
    for update in range(250):
        drawn = torch.Generator().manual_seed(update)
        rows = torch.randint(len(data), (1, 32), generator=drawn)
        noise = torch.randn(1, 32, learner.noise_size, generator=drawn)
        learner.update(replace(data.sample(rows, True, target=columns.get("target")), noise=noise))
    obs = torch.linspace(-1, 1, 9).view(1, 9, 1)
    action = learner.averaged().act(obs)
    if spec.discrete:
        assert (action == 2).all()
    else:
        # Cloning acts by the mean, which is 0.
        assert (action.clamp(-1, 1) - 0.5).abs().mean() < 0.2
