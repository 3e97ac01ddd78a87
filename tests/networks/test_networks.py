"""Stacked networks against torch.nn, heads against torch.distributions."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform, TanhTransform
from torch.testing import assert_close

from awr_exp import ranges
from awr_exp.errors import UserError
from awr_exp.networks import heads
from awr_exp.networks.encoded import Encoded
from awr_exp.networks.mlp import ACTIVATIONS, INITS, MLP, size, unflatten
from awr_exp.networks.policy import Policy
from awr_exp.signatures import parameters
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, DISCRETE

G = torch.Generator().manual_seed(0)

NONE = torch.empty(0)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(head: heads.Head, members: int, rows: int) -> torch.Tensor:
    return torch.randn(members, rows, head.noise, generator=G)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_member_is_an_ordinary_network(activation: str, layer_norm: bool) -> None:
    mlp = MLP(3, 2, (8, 5), activation, layer_norm)
    theta = mlp.start(generators(0, 1))
    # Away from ones and zeros, so that a forgotten norm or bias shows.
    theta = theta + 0.1 * torch.randn(theta.shape, generator=G)
    x = torch.randn(2, 7, 3, generator=G)
    out = mlp(theta, x)
    act = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU, "gelu": nn.GELU, "silu": nn.SiLU}[activation]
    for k in range(2):
        part = {name: value[k] for name, value in unflatten(theta, mlp.shapes).items()}
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate([(3, 8), (8, 5), (5, 2)]):
            linear = nn.Linear(fan_in, fan_out)
            linear.weight.data, linear.bias.data = part[f"{i}.weight"].T, part[f"{i}.bias"][0]
            layers.append(linear)
            if i < 2 and layer_norm:
                norm = nn.LayerNorm(fan_out)
                norm.weight.data, norm.bias.data = part[f"{i}.norm.weight"][0], part[f"{i}.norm.bias"][0]
                layers.append(norm)
            if i < 2:
                layers.append(act())
        assert_close(out[k], nn.Sequential(*layers)(x[k]))


@pytest.mark.parametrize("init", INITS)
def test_a_member_starts_as_it_would_alone(init: str) -> None:
    mlp = MLP(3, 2, (8,), init=init, output_init=init)
    together = mlp.start(generators(4, 9))
    assert torch.equal(together[1:], mlp.start(generators(9)))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("init", INITS)
def test_output_scale_scales_the_last_layer_alone(init: str) -> None:
    one, small = (
        unflatten(MLP(3, 2, (8,), output_init=init, output_scale=scale).start(generators(0)), MLP(3, 2, (8,)).shapes)
        for scale in (1, 0.01)
    )
    assert_close(small["1.weight"], 0.01 * one["1.weight"])
    assert torch.equal(small["0.weight"], one["0.weight"])


def test_the_inits_of_hidden_and_last_layers_are_their_own() -> None:
    mlp = MLP(64, 64, (64,), init="orthogonal", output_init="xavier", output_scale=0.5)
    weights = unflatten(mlp.start(generators(0)), mlp.shapes)
    assert_close(weights["0.weight"][0] @ weights["0.weight"][0].T, 2 * torch.eye(64))
    bound = 0.5 * math.sqrt(6 / 128)
    assert 0.99 * bound < weights["1.weight"].abs().max() <= bound
    assert_close(weights["1.weight"].std(), torch.tensor(bound / math.sqrt(3)), rtol=0.05, atol=0)


@pytest.mark.parametrize("init", INITS)
def test_input_scale_scales_the_first_layer_alone(init: str) -> None:
    one, small = (
        unflatten(MLP(3, 2, (8, 8), init=init, input_scale=scale).start(generators(0)), MLP(3, 2, (8, 8)).shapes)
        for scale in (1, 0.5)
    )
    assert_close(small["0.weight"], 0.5 * one["0.weight"])
    assert torch.equal(small["1.weight"], one["1.weight"])
    assert torch.equal(small["2.weight"], one["2.weight"])


def test_the_check_of_a_configuration_knows_every_choice() -> None:
    known = parameters("awr_exp.networks.mlp.MLP")
    for name, choices in (("activation", ACTIVATIONS), ("init", INITS), ("output_init", INITS)):
        assert str(ranges.of(known[name])) == f"one of {', '.join(choices)}"


def gaussian(std: str | float, outputs: torch.Tensor, extra: heads.Extra) -> Normal:
    if std == "state_dependent":
        mean, log_std = outputs.chunk(2, -1)
        return Normal(mean, log_std.exp())
    return Normal(outputs, extra["log_std"].exp() if extra else torch.tensor(float(std)))


SCALE = AffineTransform(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 3.0]))  # to the bounds of CONTINUOUS


@pytest.mark.parametrize("std", ["state_independent", "state_dependent", 0.4])
@pytest.mark.parametrize("squashed", [False, True])
def test_gaussian_heads_are_distributions_over_the_action(std: str | float, squashed: bool) -> None:
    head = (heads.TanhGaussian if squashed else heads.Gaussian)(CONTINUOUS, std)
    outputs = 0.5 * torch.randn(2, 6, head.outputs, generator=G)
    extra = {"log_std": torch.randn(2, 1, 2, generator=G)} if head.shapes else {}
    base = gaussian(std, outputs, extra)
    transforms = [TanhTransform(), SCALE] if squashed else [SCALE]
    oracle = Independent(TransformedDistribution(base, transforms), 1)
    action = torch.rand(2, 6, 2, generator=G) * torch.tensor([1.8, 5.4]) + torch.tensor([-0.9, -1.7])
    assert_close(head.log_prob(outputs, extra, action), oracle.log_prob(action), rtol=1e-4, atol=1e-4)
    if not squashed:
        expected = Independent(base, 1).entropy() + math.log(3)
        assert_close(head.entropy(outputs, extra), expected.expand(2, 6))
        assert_close(head.act(outputs, extra, None), SCALE(base.mean))


@pytest.mark.parametrize(("progress", "std"), [(0.0, 0.5), (0.25, 0.4), (1.0, 0.1), (1.5, 0.1)])
def test_an_annealed_gaussian_is_a_fixed_one_at_every_moment(progress: float, std: float) -> None:
    make = partial(MLP, hidden=(8,))
    annealed = Policy(CONTINUOUS, make, partial(heads.AnnealedGaussian, std=0.5, std_end=0.1, bound_penalty=2.0))
    fixed = Policy(CONTINUOUS, make, partial(heads.Gaussian, std=std, bound_penalty=2.0))
    plain = fixed.start(generators(3, 4))
    theta = annealed.start(generators(3, 4))
    annealed.anneal(theta, progress)
    obs, action = torch.randn(2, 6, 3, generator=G), torch.randn(2, 6, 2, generator=G)
    for found, expected in zip(
        annealed.loss(theta, obs, action, NONE), fixed.loss(plain, obs, action, NONE), strict=True
    ):
        assert_close(found, expected)
    drawn = noise(annealed.head, 2, 6)
    assert_close(annealed.act(theta, obs, drawn), fixed.act(plain, obs, drawn))
    theta.requires_grad_()
    (grad,) = torch.autograd.grad(annealed.loss(theta, obs, action, NONE)[0].sum(), theta)
    assert (grad[:, -2:] == 0).all()
    assert (grad[:, :-2] != 0).any()


@pytest.mark.parametrize("head_class", [heads.Gaussian, heads.TanhGaussian])
def test_a_squashed_gaussian_stays_inside_the_bounds_and_data_on_them_have_a_density(
    head_class: type[heads.Gaussian],
) -> None:
    head = head_class(CONTINUOUS, "state_dependent")
    outputs = 50 * torch.randn(1, 200, head.outputs, generator=G)
    low, high = torch.tensor(CONTINUOUS.action_low), torch.tensor(CONTINUOUS.action_high)
    for action in (head.act(outputs, {}, None), head.act(outputs, {}, noise(head, 1, 200))):
        inside = (action >= low) & (action <= high)
        # A Gaussian's action is as it was drawn.
        assert inside.all() == (head_class is heads.TanhGaussian)
    assert head.log_prob(outputs, {}, high.expand(1, 200, 2)).isfinite().all()


def test_samples_have_the_moments_of_the_distribution() -> None:
    outputs = torch.tensor([0.2, -0.3]).expand(2, 20_000, 2)
    head = heads.Gaussian(CONTINUOUS, 0.1)
    sample = head.act(outputs, {}, noise(head, 2, 20_000))
    assert_close(sample.mean(1), SCALE(outputs[:, 0]), atol=0.02, rtol=0)
    assert_close(sample.std(1), torch.tensor([0.1, 0.3]).expand(2, 2), atol=0.01, rtol=0)
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).expand(1, 40_000, 4)
    choice = heads.Categorical(DISCRETE)
    drawn = choice.act(logits, {}, noise(choice, 1, 40_000))
    share = torch.bincount(drawn[0], minlength=4) / 40_000
    assert_close(share, logits[0, 0].softmax(-1), atol=0.01, rtol=0)


def test_categorical_is_one() -> None:
    head = heads.Categorical(DISCRETE)
    logits = torch.randn(2, 6, 4, generator=G)
    action = torch.randint(4, (2, 6), generator=G)
    oracle = Categorical(logits=logits)
    assert_close(head.log_prob(logits, {}, action), oracle.log_prob(action))
    assert_close(head.entropy(logits, {}), oracle.entropy())
    assert torch.equal(head.act(logits, {}, None), logits.argmax(-1))


def test_a_head_that_does_not_fit_the_actions_says_which_does() -> None:
    with pytest.raises(UserError, match="head=categorical needs discrete actions"):
        heads.Categorical(CONTINUOUS)
    with pytest.raises(UserError, match="use head=auto or head=categorical"):
        heads.Gaussian(DISCRETE)
    with pytest.raises(UserError, match="must be a positive, finite number: to learn it, choose head=gaussian"):
        heads.AnnealedGaussian(CONTINUOUS, "state_dependent")  # type: ignore[arg-type]
    unbounded = Spec(3, 1, None, (-math.inf,), (math.inf,))
    with pytest.raises(UserError, match="finite action bounds"):
        heads.TanhGaussian(unbounded)
    assert heads.Gaussian(unbounded, 1.0).act(torch.tensor([[[7.5]]]), {}, None).item() == 7.5


FIXED = Spec(3, 3, None, (-1.0, 0.5, -math.inf), (1.0, 0.5, math.inf))


@pytest.mark.parametrize("head", [heads.Gaussian, heads.TanhGaussian, partial(heads.Gaussian, std="state_dependent")])
def test_an_entry_whose_bounds_are_equal_is_that_and_no_part_of_the_distribution(head: Any) -> None:
    fixed, free = FIXED, Spec(3, 2, None, (-1.0, -math.inf), (1.0, math.inf))
    if head is heads.TanhGaussian:
        fixed, free = Spec(3, 3, None, (-1.0, 0.5, -2.0), (1.0, 0.5, 2.0)), Spec(3, 2, None, (-1.0, -2.0), (1.0, 2.0))
    with_it, without = head(fixed), head(free)
    size = with_it.outputs // 3
    outputs = torch.randn(2, 5, size, 3, generator=G)
    rest = outputs[..., [0, 2]]
    extra = {"log_std": torch.randn(2, 1, 3, generator=G)} if with_it.shapes else {}
    others = {name: value[..., [0, 2]] for name, value in extra.items()}
    action = torch.rand(2, 5, 3, generator=G)
    action[..., 1] = 0.5
    assert_close(
        with_it.log_prob(outputs.flatten(2), extra, action),
        without.log_prob(rest.flatten(2), others, action[..., [0, 2]]),
    )
    assert_close(with_it.entropy(outputs.flatten(2), extra), without.entropy(rest.flatten(2), others))
    mode, sample = (with_it.act(outputs.flatten(2), extra, drawn) for drawn in (None, noise(with_it, 2, 5)))
    assert_close(mode[..., [0, 2]], without.act(rest.flatten(2), others, None))
    assert torch.stack([mode, sample])[..., 1].unique().tolist() == [0.5]
    with_it.bound_penalty = without.bound_penalty = 1.0
    assert_close(with_it.penalty(outputs.flatten(2), extra), without.penalty(rest.flatten(2), others))


@pytest.mark.parametrize("bound", [1e17, math.inf])
def test_wide_bounds_overflow_nowhere(bound: float) -> None:
    spec = Spec(3, 2, None, (-bound, 0.0), (bound, bound))
    head = heads.Gaussian(spec, bound_penalty=1.0)
    outputs, extra = torch.full((1, 4, 2), -3.0), {"log_std": torch.zeros(1, 1, 2)}
    for found in (
        head.log_prob(outputs, extra, torch.ones(1, 4, 2)),
        head.entropy(outputs, extra),
        head.penalty(outputs, extra),
        head.act(outputs, extra, None),
    ):
        assert bool(found.isfinite().all())


def test_an_encoder_and_a_trunk_are_one_function() -> None:
    encoder, trunk = partial(MLP, hidden=(5,)), partial(MLP, hidden=(4,))
    whole = Encoded(3, 2, encoder, trunk, features=6, extra=1)
    theta = whole.start([torch.Generator().manual_seed(seed) for seed in (0, 1)])
    x = torch.randn(2, 7, 3 + 1, generator=G)
    first, second = encoder(inputs=3, outputs=6), trunk(inputs=6, outputs=2, extra=1)
    own, rest = theta.split([size(first.shapes), size(second.shapes)], 1)
    features = first(own, x[..., :3]).relu()
    assert_close(whole(theta, x), second(rest, torch.cat([features, x[..., 3:]], -1)))
    assert theta.shape == (2, size(whole.shapes))
    assert not torch.equal(theta[0], theta[1])


def test_a_squashed_policy_says_that_the_data_lie_on_its_bounds() -> None:
    action = torch.zeros(20, 2)
    assert list(heads.TanhGaussian(CONTINUOUS).about_data(action)) == []
    action[:6, 0] = 1.0
    (said,) = heads.TanhGaussian(CONTINUOUS).about_data(action)
    assert said.startswith("15% of the numbers in the data's actions lie on their bounds")
    assert said.endswith("try head=gaussian")
    assert list(heads.Gaussian(CONTINUOUS).about_data(action)) == []


@pytest.mark.parametrize("far", [0.0, 3.0, 12.0])
def test_the_density_of_a_drawn_action_is_exact_however_near_its_bound(far: float) -> None:
    """The action alone, rounded to its bound, would not say which one it was."""
    head = heads.TanhGaussian(CONTINUOUS)
    outputs = torch.cat([torch.full((1, 5, 2), far), torch.full((1, 5, 2), -2.0)], -1).requires_grad_()
    drawn = noise(head, 1, 5)
    action, log_prob = head.draw(outputs, {}, drawn)
    assert_close(action, head.act(outputs, {}, drawn))
    mean = outputs.detach()[..., :2].double().requires_grad_()
    x = mean + math.exp(-2.0) * drawn.double()
    # log(1 - tanh(x)^2) of positive x, by exponentials that do not cancel.
    slope = 2 * (math.log(2) - x.abs() - torch.log1p((-2 * x.abs()).exp()))
    expected = (Normal(mean, math.exp(-2.0)).log_prob(x) - slope).sum(-1) - math.log(3.0)
    assert_close(log_prob.double(), expected, rtol=1e-4, atol=1e-4)
    (grad,) = torch.autograd.grad(log_prob.sum(), outputs)
    (wanted,) = torch.autograd.grad(expected.sum(), mean)
    assert_close(grad[..., :2].double(), wanted, rtol=1e-4, atol=1e-4)


def test_an_annealed_deviation_is_the_one_that_was_asked_for() -> None:
    """A learnt one is kept within limits, at which its gradient would end."""
    head, learnt = heads.AnnealedGaussian(CONTINUOUS, std=20.0, std_end=0.001), heads.Gaussian(CONTINUOUS)
    outputs, one = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    for progress, std in ((0.0, 20.0), (1.0, 0.001)):
        extra = unflatten(head.start(generators(0)), head.shapes)
        head.anneal(extra, progress)
        away = head.act(outputs, extra, one) - head.act(outputs, extra, None)
        assert_close(away[0, 0], std * torch.tensor([1.0, 3.0]))
        numpy_away = head.numpy(extra)(outputs.numpy(), one.numpy()) - head.numpy(extra)(outputs.numpy(), None)
        assert_close(torch.tensor(numpy_away), away)
    assert learnt.act(outputs, {"log_std": 9 * one}, one).abs().max() == pytest.approx(1 + 3 * math.exp(2.0), rel=1e-5)
