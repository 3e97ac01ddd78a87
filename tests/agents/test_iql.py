"""Implicit Q-learning: one member is the plain algorithm, and the expectile is what it says."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from awr_exp.agents.iql import IQL
from awr_exp.math import losses, weights
from awr_exp.networks import heads
from awr_exp.networks.actions import Q
from awr_exp.networks.mlp import MLP, unflatten
from awr_exp.types import Batch, Spec
from tests.agents.test_agents import sequential
from tests.conftest import CONTINUOUS, NETWORK, random_batch


def make_iql(spec: Spec = CONTINUOUS, seeds: Sequence[int] = (0,), **options: Any) -> IQL:
    parts: dict[str, Any] = {"weighting": weights.exp_clip, "value_iters": 1, "dtype": torch.float64}
    return IQL(spec, NETWORK, heads.auto, list(seeds), **(parts | options))


def test_one_member_is_the_plain_algorithm() -> None:
    """Ten updates of three optimisers and four modules, as anybody would write them."""
    agent = make_iql(beta=0.5, max_weight=3.0, gamma=0.9, expectile=0.8, target_rate=0.1, critic_lr=1e-3)
    value = sequential(unflatten(agent.critic.theta, agent.critic.module.shapes))
    each = agent.q.theta.unflatten(1, (2, -1)).squeeze(0)
    qs = [sequential(unflatten(theta.unsqueeze(0), agent.q.module.network.shapes)) for theta in each]
    slow = copy.deepcopy(qs)
    parts = unflatten(agent.actor.theta, agent.policy.shapes)
    actor, log_std = sequential(parts), nn.Parameter(parts["log_std"][0, 0].clone())
    optimizers = {
        "value": torch.optim.Adam(value.parameters(), 1e-3),
        "q": torch.optim.Adam([p for q in qs for p in q.parameters()], 1e-3),
        "actor": torch.optim.Adam([*actor.parameters(), log_std], 3e-4),
    }

    def descend(name: str, loss: torch.Tensor) -> None:
        optimizers[name].zero_grad()
        loss.backward()
        optimizers[name].step()

    scale, centre = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    for seed in range(10):
        batch = random_batch(CONTINUOUS, 1, 32, seed)
        metrics = agent.update(batch)
        one = {name: tensor[0] for name, tensor in vars(batch).items() if tensor is not None}
        inputs = torch.cat([one["obs"], (one["action"] - centre) / scale], -1)

        def least(networks: list[nn.Sequential], inputs: torch.Tensor = inputs) -> torch.Tensor:
            return torch.stack([q(inputs)[:, 0] for q in networks]).amin(0)

        u = least(slow).detach() - value(one["obs"])[:, 0]
        value_loss = ((0.8 - (u < 0).double()).abs() * u**2).mean()
        descend("value", value_loss)
        with torch.no_grad():
            target = one["reward"] + 0.9 * ~one["terminated"] * value(one["next_obs"])[:, 0]
        descend("q", sum(((q(inputs)[:, 0] - target) ** 2).mean() for q in qs))
        with torch.no_grad():
            for q, follower in zip(qs, slow, strict=True):
                for theta, behind in zip(q.parameters(), follower.parameters(), strict=True):
                    behind.lerp_(theta, 0.1)
            weight = ((least(slow) - value(one["obs"])[:, 0]) / 0.5).exp().clamp(max=3.0)
        density = torch.distributions.Normal(centre + scale * actor(one["obs"]), scale * log_std.exp())
        actor_loss = -(weight * density.log_prob(one["action"]).sum(-1)).mean()
        descend("actor", actor_loss)
        assert_close(metrics["value_loss"][0], value_loss.detach())
        assert_close(metrics["mean_weight"][0], weight.mean())
        assert_close(metrics["actor_loss"][0], actor_loss.detach())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_loss_is_least_at_the_expectile(share: float) -> None:
    """Where what is above, weighted with the share, balances what is below (Newey and Powell 1987)."""
    sample = torch.randn(1, 1_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    at = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    for _ in range(500):
        (slope,) = torch.autograd.grad(
            losses.expectile(sample - at, torch.tensor([[share]], dtype=torch.float64)).sum(), at
        )
        at = (at - slope).detach().requires_grad_()
    above, below = (sample - at).clamp(min=0).sum(), (at - sample).clamp(min=0).sum()
    assert_close(share * above, (1 - share) * below)


def test_values_and_policy_of_a_bandit_are_known() -> None:
    """One state, arms of rewards 0 and 1 in equal shares: V is the expectile, and pi follows exp((Q - V) / beta)."""
    shares, betas = [0.5, 0.9], [1.0, 0.5]
    agent = make_iql(
        Spec(1, num_actions=2), (0, 0), expectile=shares, beta=betas, gamma=0.0, max_weight=1e6, target_rate=0.1,
        actor_lr=1e-2, critic_lr=1e-2,
    )  # fmt: skip
    action = torch.arange(2).repeat(2, 16)
    zeros, flags = torch.zeros(2, 32, 1), torch.zeros(2, 32, dtype=torch.bool)
    batch = Batch(zeros, action, action.double(), zeros, ~flags, flags)
    for _ in range(700):
        agent.update(batch)
    assert_close(
        agent.value(zeros.double(), agent.critic.theta)[:, 0], torch.tensor(shares).double(), atol=0.02, rtol=0
    )
    logits = agent.policy._head_inputs(agent.actor.theta, zeros[:, :1].double())[0][:, 0]
    expected = torch.stack([(torch.arange(2.0) / beta).softmax(-1) for beta in betas]).double()
    assert_close(logits.softmax(-1), expected, atol=0.02, rtol=0)


def test_q_is_its_networks_side_by_side() -> None:
    both = Q(CONTINUOUS, partial(MLP, hidden=(5,)))
    theta = both.start([torch.Generator().manual_seed(seed) for seed in (4, 5)])
    obs, action = torch.randn(2, 7, 3), torch.randn(2, 7, 2)
    x = torch.cat([obs, both.as_inputs(action, obs)], -1)
    for number, own in enumerate(theta.chunk(2, 1)):
        assert_close(both(theta, obs, action)[:, number], both.network(own, x).squeeze(-1))
    assert not torch.equal(*theta.chunk(2, 1))
    assert sum(torch.Size(shape).numel() for shape in both.shapes.values()) == theta.shape[1]
