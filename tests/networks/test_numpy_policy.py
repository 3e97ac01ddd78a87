"""A policy in NumPy acts as it does in torch."""

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from awr_exp.networks import heads
from awr_exp.networks.bins import CategoricalBins
from awr_exp.networks.flow import Flow
from awr_exp.networks.mixture import Mixture
from awr_exp.networks.mlp import ACTIVATIONS, MLP
from awr_exp.networks.numpy_policy import Uniform
from awr_exp.policy import TrainedPolicy
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, DISCRETE, make_awr

HEADS = {
    "gaussian": (CONTINUOUS, heads.Gaussian),
    "state_dependent": (CONTINUOUS, partial(heads.Gaussian, std="state_dependent")),
    "fixed": (CONTINUOUS, partial(heads.Gaussian, std=0.4)),
    "annealed": (CONTINUOUS, heads.AnnealedGaussian),
    "tanh": (CONTINUOUS, heads.TanhGaussian),
    "tanh_fixed": (CONTINUOUS, partial(heads.TanhGaussian, std=0.2)),
    "unbounded": (Spec(3, 2, None, (-np.inf, -1.0), (np.inf, 1.0)), heads.Gaussian),
    "equal": (Spec(3, 2, None, (-1.0, 0.5), (1.0, 0.5)), heads.Gaussian),
    "categorical": (DISCRETE, heads.Categorical),
    "mixture": (CONTINUOUS, partial(Mixture, components=3)),
    "flow": (CONTINUOUS, partial(Flow, features=4, hidden=(16,), steps=4)),
    "flow_unbounded": (Spec(3, 2, None, (-np.inf, 0.5), (np.inf, 0.5)), partial(Flow, features=4, hidden=(16,))),
    "bins": (CONTINUOUS, partial(CategoricalBins, bins=5)),
}


def made(spec: Spec, head: Any, **network: Any) -> Any:
    agent = make_awr(spec, [5, 6], head=head, network=partial(MLP, hidden=(16, 8), **network), dtype=torch.float32)
    agent.actor.theta.add_(0.3 * torch.randn(agent.actor.theta.shape))
    agent.fit_normalizer(torch.randn(3), 0.5 + torch.rand(3))
    return agent


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("name", HEADS)
def test_the_mode_is_that_of_torch(name: str, activation: str, layer_norm: bool) -> None:
    torch.manual_seed(0)
    agent = made(*HEADS[name], activation=activation, layer_norm=layer_norm)
    quick = agent.numpy_policy()
    if activation == "gelu":
        assert quick is None
        return
    assert quick is not None
    # Some are far from what the normaliser knows.
    obs = torch.randn(2, 50, 3) * torch.tensor([1.0] * 45 + [1e3] * 5).unsqueeze(1)
    expected, found = agent.act(obs), quick(obs.numpy())
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-5)
    assert found.dtype == (np.int64 if name == "categorical" else np.float32)


@pytest.mark.parametrize("name", HEADS)
def test_samples_are_those_of_torch(name: str) -> None:
    torch.manual_seed(1)
    agent = made(*HEADS[name])
    quick = agent.numpy_policy()
    assert quick is not None
    obs, noise = torch.randn(2, 1_000, 3), torch.randn(2, 1_000, quick.noise)
    assert quick.noise == agent.policy.head.noise
    np.testing.assert_allclose(quick(obs.numpy(), noise.numpy()), agent.act(obs, noise).numpy(), rtol=1e-4, atol=1e-4)


def test_what_numpy_does_not_know_is_left_to_torch() -> None:
    class Own(heads.Gaussian):
        pass

    assert made(CONTINUOUS, Own).numpy_policy() is None


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_who_plays_decides_about_bounds_whatever_form_the_policy_has(activation: str) -> None:
    agent = make_awr(
        CONTINUOUS, [5], head=heads.Gaussian, network=partial(MLP, hidden=(16,), activation=activation),
        dtype=torch.float32,
    )  # fmt: skip
    agent.actor.theta.mul_(100)
    policy = TrainedPolicy(CONTINUOUS, agent.policy, agent.state_dict(), 0)
    obs, rng = np.ones(3, np.float32), np.random.default_rng(0)
    for sample in (False, True):
        played, called = policy.act_on_one(sample)(obs, rng), policy(obs, not sample)
        assert abs(played).max() > 4
        assert (called >= CONTINUOUS.action_low).all()
        assert (called <= CONTINUOUS.action_high).all()
        assert called.dtype == np.float32


@pytest.mark.parametrize("spec", [CONTINUOUS, DISCRETE, HEADS["unbounded"][0]])
def test_uniform_actions_are_within_bounds(spec: Spec) -> None:
    policy = Uniform(spec)
    noise = np.random.default_rng(0).standard_normal((1, 5_000, policy.noise), np.float32)
    actions = policy(np.zeros((1, 5_000, 3), np.float32), noise)[0]
    if spec.num_actions:
        assert np.bincount(actions).min() > 1_100
        return
    low = np.where(np.isfinite(spec.action_low), spec.action_low, -1)
    high = np.where(np.isfinite(spec.action_high), spec.action_high, 1)
    np.testing.assert_allclose([actions.min(0), actions.max(0)], [low, high], atol=0.02)


def test_acting_needs_no_torch() -> None:
    code = "import sys, awr_exp.networks.numpy_policy, awr_exp.envs.rollout; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
