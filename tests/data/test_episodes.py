"""Data sets of episodes in memory."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from awr_exp.data.episodes import from_episodes
from awr_exp.errors import UserError
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, DISCRETE

RNG = np.random.default_rng(0)


def episode(spec: Spec, steps: int, **others: Any) -> dict[str, Any]:
    action = RNG.integers(4, size=steps) if spec.discrete else RNG.uniform(-1, 1, (steps, 2))
    return {
        "observations": RNG.normal(size=(steps + 1, 3)),
        "actions": action,
        "rewards": RNG.normal(size=steps),
    } | others


def test_a_batch_has_what_the_episodes_have(spec: Spec) -> None:
    episodes = [episode(spec, 3, terminated=True), episode(spec, 1), episode(spec, 2, terminated=False)]
    data = from_episodes("mine", spec, episodes, ref_min_score=-3.0)
    batch = data.sample(torch.arange(6).unsqueeze(0))
    for field, name in (
        ("obs", "observations"),
        ("next_obs", "observations"),
        ("action", "actions"),
        ("reward", "rewards"),
    ):
        part = slice(1, None) if field == "next_obs" else slice(-1) if field == "obs" else slice(None)
        expected = np.concatenate([one[name][part] for one in episodes])
        assert_close(getattr(batch, field)[0].numpy(), expected, check_dtype=False)
    assert batch.terminated.tolist() == [[False, False, True, False, False, False]]
    assert batch.truncated.tolist() == [[False, False, False, True, False, True]]
    assert_close(data.info.episode_returns, np.array([one["rewards"].sum() for one in episodes]))
    assert (data.info.id, data.info.ref_min_score, len(data)) == ("mine", -3.0, 6)
    assert data.info.fingerprint != from_episodes("mine", spec, episodes[:2]).info.fingerprint


@pytest.mark.parametrize(
    ("spec", "others", "said"),
    [
        (CONTINUOUS, {"observations": np.zeros((3, 3))}, "observations are of the shape (3, 3); it should be (4, 3)"),
        (CONTINUOUS, {"actions": np.zeros(3)}, "actions are of the shape (3,); it should be (3, 2)"),
        (CONTINUOUS, {"actions": np.full((3, 2), 9.0)}, "actions holds 9 at step 0; it is outside the bounds"),
        (CONTINUOUS, {"rewards": []}, "observations are of the shape (4, 3); it should be (1, 3)"),
        (CONTINUOUS, {"rewards": [0, 1, np.nan]}, "rewards holds nan at step 2; repair or remove the episode"),
        (CONTINUOUS, {"rewards": ["a", "b", "c"]}, "cannot be read: could not convert string to float: 'a'"),
        (DISCRETE, {"actions": [0, 1, 4]}, "actions holds 4 at step 2; its space has the whole numbers from 0 to 3"),
    ],
)
def test_what_is_wrong_with_an_episode_is_said_in_one_line(spec: Spec, others: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        from_episodes("mine", spec, [episode(spec, 2), episode(spec, 3) | others])
    assert str(error.value).startswith("data set 'mine', episode 1")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="data set 'mine' has no episodes"):
        from_episodes("mine", spec, [])
