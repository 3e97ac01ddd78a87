"""Built-in behaviour policies act for one observation and for a batch."""

import numpy as np
import pytest

from awr_exp.envs.behaviour import cartpole, pendulum, pendulum_random
from awr_exp.envs.episode import Act


@pytest.mark.parametrize(
    ("policy", "obs_dim", "shape"), [(pendulum(0.1), 3, (1,)), (pendulum_random(), 3, (1,)), (cartpole(0.5), 4, ())]
)
def test_the_first_of_a_batch_acts_as_it_would_alone(policy: Act, obs_dim: int, shape: tuple[int, ...]) -> None:
    obs = np.random.default_rng(0).normal(size=(5, obs_dim)).astype(np.float32)
    one, batch = (policy(given, np.random.default_rng(1)) for given in (obs[0], obs))
    assert (np.shape(one), np.shape(batch)) == (shape, (5, *shape))
    if shape:
        assert np.array_equal(batch[0], one)
