"""The update against one written out by hand, members against separate runs."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from awr_exp.agents.awr import AWR
from awr_exp.agents.bc import BC
from awr_exp.agents.rwr import RWR
from awr_exp.errors import UserError
from awr_exp.math import optimizers, weights
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks import heads
from awr_exp.networks.mlp import MLP, unflatten
from awr_exp.types import Batch, Spec
from tests.conftest import CONTINUOUS, DISCRETE, NETWORK, make_awr, random_batch


def row(batch: Batch, k: int) -> Batch:
    """Member k's part of a batch."""
    return Batch(**{name: value[k : k + 1] for name, value in vars(batch).items() if value is not None})


def sequential(part: dict[str, torch.Tensor]) -> nn.Sequential:
    """The first member's network as an ordinary module."""
    layers: list[nn.Module] = []
    for i in range(3):
        weight, bias = part[f"{i}.weight"][0], part[f"{i}.bias"][0, 0]
        linear = nn.Linear(*weight.shape).double()
        linear.weight.data, linear.bias.data = weight.T.clone(), bias.clone()
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    "agent",
    [make_awr, lambda **options: BC(CONTINUOUS, NETWORK, heads.auto, actor_lr=1e-3, max_grad_norm=None, **options)],
)
def test_the_average_is_that_of_a_moving_average_written_out(agent: Any) -> None:
    """Each member by its own decay, shorter in the beginning; and learning does not look at it."""
    decays = [0.0, 0.2, 0.9]
    averaged, plain = agent(seeds=[0, 1, 2], ema_decay=decays), agent(seeds=[0, 1, 2])
    expected = averaged.actor.theta.clone()
    for step in range(1, 31):
        for each in (averaged, plain):
            each.update(random_batch(CONTINUOUS, 3, 16, step, dtype=each.dtype))
        for member, decay in enumerate(decays):
            share = 1 - min(decay, (1 + step) / (10 + step))
            expected[member] += share * (averaged.actor.theta[member] - expected[member])
    assert torch.equal(averaged.actor.theta, plain.actor.theta)
    assert_close(averaged.averaged().actor.theta, expected)
    assert_close(expected[0], averaged.actor.theta[0])
    assert not torch.allclose(expected[2], averaged.actor.theta[2])
    obs = random_batch(CONTINUOUS, 3, 5, dtype=averaged.dtype).obs
    assert_close(averaged.averaged().act(obs), averaged.policy.act(expected, obs))
    assert plain.averaged().actor.theta is plain.actor.theta


def test_an_average_that_a_checkpoint_lacks_begins_where_the_actor_is() -> None:
    before, after = make_awr(seeds=[3]), make_awr(seeds=[4], ema_decay=0.9)
    after.load_state_dict(before.state_dict())
    assert after.actor.average is not None
    assert torch.equal(after.actor.average, before.actor.theta)


def test_one_member_is_the_plain_algorithm() -> None:
    """Ten updates of two optimisers, a schedule and two modules, as anybody would write them."""
    agent = make_awr(
        anneal_actor_lr=True,
        head=lambda spec: heads.Gaussian(spec),
        beta=0.7,
        max_weight=3.0,
        gamma=0.9,
        critic_lr=1e-3,
        max_grad_norm=0.5,
    )
    agent.anneal_over(8)
    critic = sequential(unflatten(agent.critic.theta, agent.critic.module.shapes))
    actor_parts = unflatten(agent.actor.theta, agent.policy.shapes)
    actor = sequential(actor_parts)
    log_std = nn.Parameter(actor_parts["log_std"][0, 0].clone())
    critic_adam = torch.optim.Adam(critic.parameters(), 1e-3)
    actor_adam = torch.optim.Adam([*actor.parameters(), log_std], 3e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(actor_adam, 8)
    scale, centre = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    for seed in range(10):
        batch = random_batch(CONTINUOUS, 1, 32, seed)
        metrics = agent.update(batch)
        one = {name: value[0] for name, value in vars(batch).items() if value is not None}

        def target(one: dict[str, torch.Tensor] = one) -> torch.Tensor:
            with torch.no_grad():
                return one["reward"] + 0.9 * ~one["terminated"] * critic(one["next_obs"])[:, 0]

        for _ in range(5):
            value_loss = ((critic(one["obs"])[:, 0] - target()) ** 2).mean()
            critic_adam.zero_grad()
            value_loss.backward()
            nn.utils.clip_grad_norm_(critic.parameters(), 0.5)
            critic_adam.step()
        with torch.no_grad():
            advantage = target() - critic(one["obs"])[:, 0]
            weight = (advantage / 0.7).exp().clamp(max=3.0)
        density = torch.distributions.Normal(centre + scale * actor(one["obs"]), scale * log_std.exp())
        actor_loss = -(weight * density.log_prob(one["action"]).sum(-1)).mean()
        actor_adam.zero_grad()
        actor_loss.backward()
        nn.utils.clip_grad_norm_([*actor.parameters(), log_std], 0.5)
        actor_adam.step()
        if seed < 8:
            schedule.step()
        assert_close(metrics["value_loss"][0], value_loss.detach())
        assert_close(metrics["mean_advantage"][0], advantage.mean())
        assert_close(metrics["mean_weight"][0], weight.mean())
        assert_close(metrics["actor_loss"][0], actor_loss.detach())


def test_the_published_settings_are_the_authors_steps() -> None:
    """Momentum, half squared errors in units of 1 / (1 - gamma), a fixed deviation and a penalty on means outside."""
    agent = make_awr(
        head=lambda spec: heads.Gaussian(spec, std=0.4, bound_penalty=10.0),
        optimizer=optimizers.momentum,
        normalize_values=True,
        gamma=0.9,
        critic_lr=5e-3,
        actor_lr=1e-4,
    )
    # Far enough from zero that some means are outside.
    agent.actor.theta.mul_(6)
    agent.anneal_over(8)
    critic = sequential(unflatten(agent.critic.theta, agent.critic.module.shapes))
    actor = sequential(unflatten(agent.actor.theta, agent.policy.shapes))
    critic_sgd = torch.optim.SGD(critic.parameters(), 0.01, 0.9)
    actor_sgd = torch.optim.SGD(actor.parameters(), 1e-4, 0.9)
    scale, centre = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    for seed in range(10):
        batch = random_batch(CONTINUOUS, 1, 32, seed)
        target, weight = 20 * torch.randn(2, 1, 32, dtype=torch.float64)
        metrics = agent.critic_update(replace(batch, target=target))
        metrics |= agent.actor_update(batch, weight.abs())
        value = critic(batch.obs[0])[:, 0]
        loss = 0.5 * (value - target[0] * 0.1).square().mean()
        critic_sgd.zero_grad()
        loss.backward()
        critic_sgd.step()
        assert_close(metrics["value_loss"][0], (10 * value - target[0]).square().mean().detach())
        mean = actor(batch.obs[0])
        outside = (mean + 1).clamp(max=0).square().sum(-1) + (mean - 1).clamp(min=0).square().sum(-1)
        assert seed or bool(outside.any())
        log_prob = torch.distributions.Normal(mean, 0.4).log_prob((batch.action[0] - centre) / scale).sum(-1)
        loss = -(weight[0].abs() * log_prob).mean() + 10 * 0.5 * outside.mean()
        actor_sgd.zero_grad()
        loss.backward()
        actor_sgd.step()
        assert_close(metrics["actor_loss"][0] - weight.abs().mean() * math.log(3), loss.detach())
        for parameters, module in ((agent.critic, critic), (agent.actor, actor)):
            network = unflatten(
                parameters.theta, agent.critic.module.shapes if module is critic else agent.policy.shapes
            )
            for layer in range(3):
                assert_close(network[f"{layer}.weight"][0].T, module[2 * layer].weight.detach())


def test_values_cannot_be_normalised_without_discount() -> None:
    with pytest.raises(UserError, match=r"choose agent\.gamma below 1"):
        make_awr(seeds=[0, 1], gamma=[0.9, 1.0], normalize_values=[False, True])
    make_awr(seeds=[0, 1], gamma=[0.9, 1.0], normalize_values=[True, False])


def test_without_baseline_the_return_itself_weighs() -> None:
    agent, baseline = make_awr(kind=RWR, beta=2.0, max_weight=50.0), make_awr()
    batch = replace(random_batch(CONTINUOUS, 1, 32), target=3 * torch.randn(1, 32, dtype=torch.float64))
    metrics = agent.update(batch)
    assert_close(metrics["mean_advantage"], batch.target.mean(-1))
    assert_close(metrics["mean_weight"], (batch.target / 2).exp().clamp(max=50).mean(-1))
    baseline.update(batch)
    assert_close(agent.critic.theta, baseline.critic.theta)


def test_logits_may_be_penalised() -> None:
    agent = make_awr(DISCRETE, head=lambda spec: heads.Categorical(spec, logit_penalty=3.0))
    plain = make_awr(DISCRETE)
    batch, weight = random_batch(DISCRETE, 1, 32), torch.rand(1, 32, dtype=torch.float64)
    logits = agent.policy.network(agent.actor.theta, batch.obs)
    difference = agent.actor_update(batch, weight)["actor_loss"] - plain.actor_update(batch, weight)["actor_loss"]
    assert_close(difference, 1.5 * logits.square().sum(-1).mean(-1))


def test_a_member_that_diverges_freezes_alone() -> None:
    crowd, healthy = make_awr(seeds=[0, 1]), make_awr(seeds=[1])
    for seed in range(6):
        batch = random_batch(CONTINUOUS, 2, 16, seed)
        if seed == 3:
            batch.reward[0, 5] = float("nan")
            before = crowd.critic.theta[0].clone()
        crowd.update(batch)
        healthy.update(row(batch, 1))
    assert crowd.alive.tolist() == [False, True]
    assert torch.equal(crowd.critic.theta[0], before)
    assert crowd.actor.theta.isfinite().all()
    assert_close(crowd.critic.theta[1:], healthy.critic.theta)
    assert_close(crowd.actor.theta[1:], healthy.actor.theta)


def test_a_constant_weight_is_behaviour_cloning(spec: Spec) -> None:
    awr = make_awr(spec, weighting=weights.constant)
    bc = BC(spec, NETWORK, heads.auto, seeds=[0], actor_lr=3e-4, max_grad_norm=None, dtype=torch.float64)
    for seed in range(5):
        batch = random_batch(spec, 1, 16, seed)
        assert_close(awr.update(batch)["actor_loss"], bc.update(batch)["actor_loss"])
    assert torch.equal(awr.actor.theta, bc.actor.theta)


def test_another_network_is_refused_by_name() -> None:
    wide = make_awr(network=lambda **sizes: MLP(**sizes, hidden=(32, 32)))
    with pytest.raises(ValueError, match=r"'actor\.theta' should be"):
        make_awr().load_state_dict(wide.state_dict())


def test_observations_are_normalised_by_the_data() -> None:
    agent, plain = make_awr(), make_awr(normalize_observations=False)
    mean, std = torch.tensor([1.0, -2.0, 30.0]), torch.tensor([0.5, 2.0, 10.0])
    for one in (agent, plain):
        one.fit_normalizer(mean, std)
    batch = random_batch(CONTINUOUS, 1, 8)
    shifted = replace(batch, obs=batch.obs * std + mean, next_obs=batch.next_obs * std + mean)
    assert_close(agent.update(shifted)["actor_loss"], plain.update(batch)["actor_loss"])


def test_an_estimator_of_whole_episodes_asks_for_its_targets() -> None:
    agent = make_awr(advantage=LambdaReturn(0.9))
    with pytest.raises(ValueError, match=r"agent\.targets"):
        agent.update(random_batch(CONTINUOUS, 1, 8))


def test_awr_finds_the_best_arm_at_the_temperature_asked_for() -> None:
    """One state, four arms, equal data: pi(a) is proportional to exp(A / beta), the paper's optimum."""
    spec = Spec(obs_dim=1, num_actions=4)
    reward = torch.tensor([0.0, 1.0, 2.0, 3.0])
    betas = [0.5, 2.0]
    agent = AWR(
        spec, NETWORK, heads.auto, [0, 0], advantage=LambdaReturn(0.0), weighting=weights.exp_clip,
        beta=betas, max_weight=1e6, gamma=0.0, actor_lr=2e-2, critic_lr=2e-2,
    )  # fmt: skip
    action = torch.arange(4).repeat(2, 16)
    zeros = torch.zeros(2, 64, 1)
    flags = torch.zeros(2, 64, dtype=torch.bool)
    batch = Batch(zeros, action, reward[action], zeros, ~flags, flags)
    for _ in range(700):
        agent.update(batch)
    inputs = agent.policy._head_inputs(agent.actor.theta, zeros[:, :1])
    probabilities = inputs[0][:, 0].softmax(-1)
    expected = torch.stack([(reward / beta).softmax(-1) for beta in betas])
    assert_close(probabilities, expected, atol=0.02, rtol=0)


def test_an_entry_that_hardly_ever_moved_is_cut_off() -> None:
    """In the units of a member that normalises, and not in those of one that does not."""
    agent = make_awr(seeds=[0, 1], normalize_observations=[True, False])
    agent.fit_normalizer(torch.zeros(3), torch.tensor([1.0, 1e-4, 1.0]))
    obs = torch.tensor([[2.0, 1.0, -300.0]]).double()
    assert_close(agent.normalize(obs), torch.tensor([[[2.0, 30.0, -30.0]], [[2.0, 1.0, -300.0]]]).double())
    assert torch.equal(agent.shard(slice(1, 2)).normalize(obs), agent.normalize(obs)[1:])


def test_an_advantage_of_ones_own_sees_the_whole_batch() -> None:
    class Own(AWR):
        def advantage(self, batch: Batch) -> torch.Tensor:
            return batch.obs.sum(-1)

    class Cheaper(AWR):
        judged_by = frozenset({"target"})

        def advantage(self, batch: Batch) -> torch.Tensor:
            assert batch.target is not None
            return batch.target

    assert [kind.judged_by for kind in (AWR, Own, Cheaper)] == [{"target", "value"}, None, {"target"}]
