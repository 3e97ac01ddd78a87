"""A flow moves noise to where the data are, whatever its velocity is learnt from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from awr_exp.networks.flow import Flow
from awr_exp.networks.mlp import MLP, unflatten
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, make_awr, random_batch

G = torch.Generator().manual_seed(0)
FIXED = Spec(3, 3, None, (-1.0, 0.5, -torch.inf), (1.0, 0.5, torch.inf))


def inputs(head: Flow, rows: int, members: int = 2) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Outputs of the policy's network, the head's own parameters, and noise of its loss."""
    theta = head.start([torch.Generator().manual_seed(seed) for seed in range(members)])
    outputs = torch.randn(members, rows, head.outputs, generator=G)
    return outputs, {"velocity": theta}, torch.randn(members, rows, head.loss_noise, generator=G)


class Known(Flow):
    """Has the velocity of data at these points alone, in units, which it need not learn.

    That is (E[a | x_t] - x_t) / (1 - t), where point a is as likely as a normal number (x_t - t a) / (1 - t).
    """

    points = torch.tensor([[-0.5, 0.25], [0.5, 0.25]])

    def _velocity(self, outputs: Tensor, extra: Any, place: Tensor, time: Tensor) -> Tensor:
        distance = (place.unsqueeze(-2) - time.unsqueeze(-1) * self.points).square().sum(-1)
        share = (-0.5 * distance / (1 - time).square()).softmax(-1)
        return (share @ self.points - place) / (1 - time)


@pytest.mark.parametrize("steps", [1, 10])
def test_every_noise_reaches_the_only_action_of_the_data(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "points", torch.tensor([[0.5, -1.0]]))
    head = Known(CONTINUOUS, steps=steps)
    outputs, extra, noise = inputs(head, 50)
    for drawn in (noise[..., :-1], None):
        # In the action's units; an action on its bound is reached, too.
        assert_close(head.act(outputs, extra, drawn), torch.tensor([0.5, -2.0]).expand(2, 50, 2))


def test_half_of_the_noise_reaches_each_of_two_actions_and_nothing_what_is_between() -> None:
    head = Known(CONTINUOUS, steps=50)
    outputs, extra, noise = inputs(head, 4_000, 1)
    sample = head.act(outputs, extra, noise[..., :-1])
    assert_close(sample[..., 0].abs(), torch.full((1, 4_000), 0.5), atol=1e-3, rtol=0)
    assert_close(sample[..., 1], torch.full((1, 4_000), 1.75), atol=1e-3, rtol=0)
    assert 0.47 < (sample[..., 0] > 0).float().mean() < 0.53


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_action_of_evaluation_is_amid_a_mode_and_the_same_in_all_states(share: float) -> None:
    """Though a fixed noise would lead to the edge of a mode, or where there are few actions."""

    class Two(Flow):
        """Noise of which a share becomes one mode, and the rest the other; a few come between them."""

        def _velocity(self, outputs: Tensor, extra: Any, place: Tensor, time: Tensor) -> Tensor:
            edge = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(share))
            return 0.8 * (4 * (place - edge)).tanh() - 0.8 * place

    head = Two(CONTINUOUS, steps=1)
    outputs, extra, noise = inputs(head, 4_000, 1)
    sample = head.act(outputs, extra, noise[..., :-1])[0, :, 0]
    mode = head.act(outputs[:, :9], extra, None)[0, :, 0]
    assert len(mode.unique()) == 1
    near = [((sample - place).abs() < 0.1).float().mean().item() for place in (mode[0], torch.tensor(0.0))]
    densest = max(((sample - place).abs() < 0.1).float().mean().item() for place in torch.linspace(-1, 1, 41))
    assert near[0] > 0.7 * densest > near[1]


def test_one_candidate_is_a_fixed_noise() -> None:
    head = Flow(CONTINUOUS, features=4, hidden=(8,), candidates=1)
    outputs, extra, _ = inputs(head, 5)
    assert_close(head.act(outputs, extra, None), head.act(outputs, extra, head.candidates.expand(2, 5, 2)))


def test_its_loss_is_the_squared_error_of_the_velocity_on_the_straight_way() -> None:
    head = Flow(CONTINUOUS, features=4, hidden=(8,))
    outputs, extra, noise = inputs(head, 6)
    action = torch.rand(2, 6, 2, generator=G) * torch.tensor([2.0, 6.0]) - torch.tensor([1.0, 2.0])
    end, begin = (action - torch.tensor([0.0, 1.0])) / torch.tensor([1.0, 3.0]), noise[..., :2]
    time = torch.distributions.Normal(0, 1).cdf(noise[..., 2:])
    place = (1 - time) * begin + time * end
    theta = extra["velocity"].requires_grad_()
    velocity = MLP(4 + 2 + 1, 2, (8,))(theta, torch.cat([outputs, place, time], -1))
    loss = head.loss(outputs, {"velocity": theta}, action, noise)
    assert_close(loss, (velocity - (end - begin)).square().sum(-1))
    # Of the bias that is added last, the gradient is twice the sum of errors.
    (grad,) = torch.autograd.grad(loss.sum(), theta)
    error = velocity.detach() - (end - begin)
    assert_close(unflatten(grad, head.velocity.shapes)["1.bias"], 2 * error.sum(1, keepdim=True))


def test_a_row_of_twice_the_weight_is_as_two_rows() -> None:
    head = Flow(CONTINUOUS, features=4, hidden=(8,))
    outputs, extra, noise = inputs(head, 3, 1)
    action, theta = torch.rand(1, 3, 2, generator=G), extra["velocity"].requires_grad_()
    grads = []
    for rows, weight in (([0, 1, 2], [1.0, 2.0, 1.0]), ([0, 1, 1, 2], [1.0] * 4)):
        loss = head.loss(outputs[:, rows], extra, action[:, rows], noise[:, rows])
        grads += torch.autograd.grad((torch.tensor(weight) * loss).sum(), theta)
    assert_close(grads[0], grads[1])


def test_an_entry_whose_bounds_are_equal_is_that_and_unbounded_ones_go_anywhere() -> None:
    head = Flow(FIXED, features=4, hidden=(8,))
    outputs, extra, noise = inputs(head, 20)
    action = torch.randn(2, 20, 3, generator=G)
    action[..., 1] = 0.5
    theta = extra["velocity"].requires_grad_()
    (grad,) = torch.autograd.grad(head.loss(outputs, extra, action, noise).sum(), theta)
    assert (unflatten(grad, head.velocity.shapes)["1.bias"][..., 1] == 0).all()
    drawn = head.act(outputs, extra, 20 * noise[..., :-1])
    assert (drawn[..., 1] == 0.5).all()
    assert drawn[..., 0].abs().max() == 1
    assert drawn[..., 2].abs().max() > 10


def test_it_learns_two_ways_of_acting() -> None:
    """With the actor step that all agents have, in which weights of 0 leave a third way out."""
    batch = random_batch(CONTINUOUS, 1, 256)
    ways = torch.tensor([-0.5, 0.0, 0.5]).double()[torch.randint(3, (1, 256, 1), generator=G)]
    batch.action.copy_(ways.expand(1, 256, 2) * torch.tensor([1.0, 3.0]) + torch.tensor([0.0, 1.0]))
    agent = make_awr(head=lambda spec: Flow(spec, features=8, hidden=(64, 64)), actor_lr=3e-3)
    for _ in range(400):
        noise = torch.randn(1, 256, agent.noise_size, generator=G).double()
        agent.actor_update(replace(batch, noise=noise), (ways[..., 0] != 0).double())
    for drawn, least in ((None, 0.9), (torch.randn(1, 256, 2, generator=G).double(), 0.75)):
        action = (agent.act(batch.obs, drawn) - torch.tensor([0.0, 1.0])) / torch.tensor([1.0, 3.0])
        assert ((action.abs() - 0.5).abs() < 0.2).double().mean() > least


@pytest.mark.parametrize(("count", "taken"), [(1, 0), (2, 0), (3, 1), (4, 1)])
def test_of_however_few_candidates_the_densest_is_taken(count: int, taken: int) -> None:
    head = Flow(
        replace(FIXED, action_low=(-9.0,) * 3, action_high=(9.0,) * 3), features=4, hidden=(8,), candidates=count
    )
    places = torch.tensor([[5.0, 5.0, 5.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]])[:count]
    head._moved = lambda outputs, extra, begin: places.expand(len(outputs), -1, -1)  # type: ignore[method-assign]
    outputs, extra, _ = inputs(head, 1)
    assert_close(head.act(outputs, extra, None), places[taken].expand(2, 1, 3))
