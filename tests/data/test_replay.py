"""A ring of transitions is what was put into it last, in order of time, and episodes stay whole."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from awr_exp.data.replay import Replay
from awr_exp.math.advantages import LambdaReturn
from awr_exp.types import Batch
from tests.conftest import CONTINUOUS, DISCRETE, make_awr

K, E = 2, 3


def filled(steps: int, capacity: int, discrete: bool = False) -> tuple[Replay, dict[str, torch.Tensor]]:
    """A replay after `steps` random steps, and all that was put in, [K, steps, E, ...]."""
    spec = DISCRETE if discrete else CONTINUOUS
    g = torch.Generator().manual_seed(steps)
    obs = torch.randn(K, steps + 1, E, spec.obs_dim, generator=g)
    shape = (K, steps, E)
    ends = torch.rand(shape, generator=g)
    content = {
        "obs": obs[:, :-1],
        "next_obs": obs[:, 1:],
        "action": torch.randint(4, shape, generator=g) if discrete else torch.rand(*shape, 2, generator=g),
        "reward": torch.randn(shape, generator=g),
        "terminated": ends < 0.1,
        "truncated": ends > 0.9,
    }
    replay = Replay(spec, K, E, capacity)
    # In pieces of different lengths, one of which may be more than it keeps.
    for piece in torch.arange(steps).tensor_split([1, 3, 4]):
        if len(piece):
            replay.extend(Batch(**{name: tensor[:, piece] for name, tensor in content.items()}))
    return replay, content


@given(st.integers(1, 40), st.integers(E, 60), st.booleans())
def test_rows_are_the_last_ones_by_environment_and_time(steps: int, capacity: int, discrete: bool) -> None:
    replay, content = filled(steps, capacity, discrete)
    kept = min(steps, capacity // E)
    assert len(replay) == kept * E
    rows = torch.arange(len(replay)).expand(K, -1)
    batch = replay.take(replay.slots_of(rows), target=replay.spread(rows.float()))
    for name, tensor in content.items():
        by_env = tensor[:, steps - kept :].transpose(1, 2).flatten(1, 2)
        assert torch.equal(getattr(batch, name), by_env), name
    assert torch.equal(batch.target, rows.float())


@given(st.integers(1, 40), st.integers(E, 60))
def test_slots_are_those_of_environments_and_steps(steps: int, capacity: int) -> None:
    replay, content = filled(steps, capacity)
    kept = min(steps, capacity // E)
    by_age = torch.arange(len(replay)).expand(K, -1)
    batch = replay.take(replay.slots(by_age % E, by_age // E))
    assert torch.equal(batch.reward, content["reward"][:, steps - kept :].flatten(1))


def test_targets_are_those_of_each_episode_alone() -> None:
    """TD(lambda) over the ring equals a backward loop over each environment's steps."""
    replay, content = filled(50, 20 * E)
    agent = make_awr(seeds=[0, 1], advantage=LambdaReturn(0.7), gamma=[0.9, 0.5])
    target, value = agent.targets(replay).values()
    kept = {name: tensor[:, -20:].double() for name, tensor in content.items()}
    for member, gamma in enumerate((0.9, 0.5)):

        def v(obs: torch.Tensor, member: int = member) -> np.ndarray:
            both = obs.reshape(1, -1, 3).expand(K, -1, -1)
            return agent.value(agent.normalize(both))[member].numpy().reshape(obs.shape[:-1])

        values, next_values = v(kept["obs"][member]), v(kept["next_obs"][member])
        for env in range(E):
            following = next_values[-1, env]
            for step in reversed(range(20)):
                done = bool(kept["terminated"][member, step, env])
                if done or kept["truncated"][member, step, env]:
                    following = next_values[step, env]
                mixed = 0.3 * next_values[step, env] + 0.7 * following
                following = float(kept["reward"][member, step, env]) + gamma * (not done) * mixed
                assert float(target[member, env * 20 + step]) == pytest.approx(following)
                assert float(value[member, env * 20 + step]) == pytest.approx(values[step, env])


@pytest.mark.parametrize("steps", [7, 20, 33])
def test_a_restored_replay_is_the_same(steps: int) -> None:
    replay, content = filled(steps, 20 * E)
    other = Replay(CONTINUOUS, K, E, 20 * E)
    other.load(torch.cat([replay.state(member) for member in range(K)]), replay.added)
    assert torch.equal(other.ring, replay.ring)
    step = Batch(**{name: tensor[:, :1] for name, tensor in content.items()})
    replay.extend(step)
    other.extend(step)
    assert torch.equal(other.ring, replay.ring)
