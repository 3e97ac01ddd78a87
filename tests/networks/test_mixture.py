"""A mixture of Gaussians is that distribution, in the units of the action."""

import math

import torch
from torch.distributions import AffineTransform, Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

from awr_exp.networks import heads
from awr_exp.networks.mixture import Mixture
from tests.conftest import CONTINUOUS, make_awr, random_batch

G = torch.Generator().manual_seed(0)
SCALE = AffineTransform(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0]))  # to the bounds of CONTINUOUS


def test_it_has_the_density_of_a_mixture() -> None:
    head = Mixture(CONTINUOUS, 3)
    outputs, action = torch.randn(2, 6, head.outputs, generator=G), torch.randn(2, 6, 2, generator=G)
    logits, each = head._components(outputs)
    mean, log_std = head._moments(each, {})
    oracle = MixtureSameFamily(Categorical(logits=logits), Independent(Normal(mean, log_std.exp()), 1))
    expected = oracle.log_prob(SCALE.inv(action)) - math.log(3)
    assert_close(head.log_prob(outputs, {}, action), expected)
    assert_close(head.loss(outputs, {}, action, action[..., :0]), -expected)


def test_one_component_is_a_gaussian() -> None:
    mixture, gaussian = Mixture(CONTINUOUS, 1), heads.Gaussian(CONTINUOUS, "state_dependent")
    outputs, noise = torch.randn(2, 6, mixture.outputs, generator=G), torch.randn(2, 6, mixture.noise, generator=G)
    for drawn, own in ((None, None), (noise, noise[..., :2])):
        assert_close(mixture.act(outputs, {}, drawn), gaussian.act(outputs[..., 1:], {}, own))
    action = torch.randn(2, 6, 2, generator=G)
    assert_close(mixture.log_prob(outputs, {}, action), gaussian.log_prob(outputs[..., 1:], {}, action))


def test_samples_are_from_all_components_and_the_mode_is_the_most_probable() -> None:
    head = Mixture(CONTINUOUS, 2)
    mean, log_std = torch.tensor([[-0.5, -0.5], [0.5, 0.5]]), torch.full((2, 2), -3.0)
    outputs = torch.cat([torch.tensor([0.0, 1.0]), torch.cat([mean, log_std], -1).flatten()]).expand(1, 20_000, -1)
    assert_close(head.act(outputs, {}, None)[0, 0], SCALE(mean[1]))
    sample = SCALE.inv(head.act(outputs, {}, torch.randn(1, 20_000, head.noise, generator=G)))
    share = (sample[0, :, 0] > 0).float().mean()
    assert_close(share, torch.tensor([0.0, 1.0]).softmax(-1)[1], atol=0.02, rtol=0)
    assert_close(sample[0, sample[0, :, 0] > 0].std(0), torch.full((2,), math.exp(-3)), atol=0.01, rtol=0)


def test_it_learns_two_ways_of_acting_where_one_gaussian_takes_their_mean() -> None:
    batch = random_batch(CONTINUOUS, 1, 256)
    sides = torch.where(torch.rand(1, 256, 1, generator=G) < 0.5, -0.5, 0.5).double()
    batch.action.copy_(SCALE(sides.expand(1, 256, 2)))
    agents = [make_awr(head=head, actor_lr=1e-2) for head in (lambda spec: Mixture(spec, 2), heads.auto)]
    weight = torch.ones(1, 256, dtype=torch.float64)
    for _ in range(150):
        for agent in agents:
            agent.actor_update(batch, weight)
    distances = [(SCALE.inv(agent.act(batch.obs)).abs() - 0.5).abs().mean() for agent in agents]
    assert distances[0] < 0.1 < 0.3 < distances[1]
