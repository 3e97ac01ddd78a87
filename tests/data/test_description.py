"""What is said of a data set: known where it was made so."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from awr_exp.data import description, facts
from awr_exp.data.description import Description, describe
from awr_exp.data.episodes import from_episodes
from awr_exp.data.transitions import Transitions
from awr_exp.types import Spec
from tests.conftest import CONTINUOUS, DISCRETE

Episode = dict[str, Any]


def episodes(count: int = 40, steps: int = 30, spec: Spec = CONTINUOUS, **changes: Any) -> list[Episode]:
    """Episodes in which an observation moves by the action, and returns differ."""
    rng, made = np.random.default_rng(0), []
    for number in range(count):
        if spec.discrete:
            action = rng.integers(spec.num_actions or 0, size=steps)
            moves = np.eye(3)[np.minimum(action, 2)]
        else:
            action = rng.uniform(-0.9, 0.9, (steps, spec.action_dim))
            moves = np.concatenate([action, action[:, :1] ** 2], 1)
        obs = rng.normal(size=3) + np.concatenate([np.zeros((1, 3)), moves.cumsum(0)])
        episode = {"observations": obs, "actions": action, "rewards": rng.normal(size=steps) + number}
        made.append(episode | {"terminated": number % 4 == 0} | changes)
    return made


def data(made: Sequence[Mapping[str, Any]], spec: Spec = CONTINUOUS, **references: float) -> Transitions:
    return from_episodes("mine/described-v0", spec, made, **references)


def remarks(made: Sequence[Mapping[str, Any]], spec: Spec = CONTINUOUS) -> str:
    return "\n".join(describe(data(made, spec)).remarks)


def test_the_numbers_are_those_of_the_data() -> None:
    made = episodes()
    found = describe(data(made, ref_min_score=0.0, ref_max_score=1000.0))
    returns = np.array([episode["rewards"].sum() for episode in made])
    obs, actions = (np.concatenate([one[name] for one in made]) for name in ("observations", "actions"))
    assert (found.episodes, found.steps, found.terminated, found.truncated) == (40, 1200, 0.25, 0.75)
    assert found.returns.mean == pytest.approx(returns.mean(), rel=1e-5)
    assert found.returns.median == pytest.approx(np.median(returns), rel=1e-5)
    assert sum(found.returns.histogram[1]) == 40
    assert found.length.low == found.length.high == 30
    assert found.scores == pytest.approx((returns.mean() / 1000, returns.max() / 1000), rel=1e-5)
    for columns, values in ((found.observations, obs), (found.actions, actions)):
        for place, one in enumerate(columns):
            own = values[:, place]
            assert (one.low, one.mean, one.high, one.std) == pytest.approx(
                (own.min(), own.mean(), own.max(), own.std()), rel=1e-4, abs=1e-5
            )
    assert [one.bounds for one in found.actions] == [(-1.0, 1.0), (-2.0, 4.0)]
    assert found.remarks == []


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for spec in (CONTINUOUS, DISCRETE):
        whole = data([*episodes(spec=spec), *episodes(5, spec=spec)], spec)
        found = describe(whole)
        with monkeypatch.context() as patch:
            patch.setattr(description, "NUMBERS", 100)
            in_pieces = describe(whole)
        rounded = [replace(one, observations=[], actions=[], reward=found.reward) for one in (found, in_pieces)]
        assert rounded[0] == rounded[1]
        for one, other in zip(in_pieces.observations, found.observations, strict=True):
            assert (one.low, one.high) == (other.low, other.high)
            assert (one.mean, one.std) == pytest.approx((other.mean, other.std), rel=1e-9)


def test_rewards_are_told_in_the_units_of_the_task() -> None:
    made = episodes()
    assert describe(data(made)).reward.high == pytest.approx(max(one["rewards"].max() for one in made), rel=1e-6)


def test_discrete_actions_have_shares_by_the_numbers_of_the_environment() -> None:
    spec = Spec(obs_dim=3, num_actions=5, action_start=2)
    found = describe(data(episodes(spec=DISCRETE), spec))
    assert list(found.choices) == [2, 3, 4, 5, 6]
    assert sum(found.choices.values()) == pytest.approx(1)
    assert "no step has action 6, of 5" in "\n".join(found.remarks)


def test_copies_of_episodes_and_of_steps_are_counted_apart() -> None:
    made = episodes()
    cut = {name: made[7][name][: 10 + (name == "observations")] for name in ("observations", "actions", "rewards")}
    found = describe(data([*made, made[3], made[3], cut]))
    # The last step of a part says that it was cut there.
    assert (found.duplicate_episodes, found.duplicate_steps) == (2, 9)
    assert found.remarks[0].startswith("2 of the 43 episodes are the same as an earlier one")


def shifted(by: int) -> list[Episode]:
    return [one | {"actions": np.roll(one["actions"], by, 0)} for one in episodes()]


@pytest.mark.parametrize(("by", "said"), [(1, "one row too late"), (-1, "one row too early"), (0, "")])
def test_actions_in_another_row_than_what_they_did_are_found(by: int, said: str) -> None:
    found = facts.explained(data(shifted(by)))
    assert found[{1: "after", -1: "before", 0: "own"}[by]] > 0.9
    assert max(value for name, value in found.items() if name != {1: "after", -1: "before", 0: "own"}[by]) < 0.1
    assert said in remarks(shifted(by))
    assert ("one row too" in remarks(shifted(by))) == bool(said)


def test_where_actions_do_nothing_no_row_is_blamed() -> None:
    rng = np.random.default_rng(1)
    made = [one | {"observations": rng.normal(size=(31, 3))} for one in episodes()]
    found = describe(data(made))
    assert max(found.explained.values()) < 0
    assert not any("one row too" in remark for remark in found.remarks)


def test_of_few_steps_nothing_is_said_about_what_actions_explain() -> None:
    assert facts.explained(data(episodes(3))) == {}


def with_entry(name: str, entry: int, value: float) -> list[Episode]:
    made = episodes()
    for one in made:
        one[name][:, entry] = value
    return made


def frozen() -> list[Episode]:
    made = episodes()
    for one in made:
        one["observations"][1::2] = one["observations"][:-1:2]
    return made


def outlier() -> list[Episode]:
    made = episodes(100)
    made[0]["observations"][0, 1] = -1e6
    return made


def at_bounds() -> list[Episode]:
    return [one | {"actions": np.sign(one["actions"])} for one in episodes()]


def rare() -> list[Episode]:
    made = [one | {"rewards": np.zeros(30)} for one in episodes(20)]
    made[0]["rewards"] = np.eye(30)[-1]
    return made


WRONG = {
    "same number in entry 2 of the observations": lambda: with_entry("observations", 2, 7.0),
    "same number in entry 1 of the actions": lambda: with_entry("actions", 1, 0.5),
    "all episodes terminate after exactly 30 steps": lambda: episodes(terminated=True),
    "the observation stays exactly as it is": frozen,
    "far from all others in entry 1 of the observations (in 1, -1e+06": outlier,
    "of the numbers in the actions lie on their bounds": at_bounds,
    "have a reward other than 0": rare,
    "all rewards are 0": lambda: episodes(rewards=np.zeros(30)),
    "all rewards are 1": lambda: episodes(rewards=np.ones(30), terminated=False),
    "there are 4 episodes: too few": lambda: episodes(4),
    "have nothing to choose": lambda: [one | {"rewards": one["rewards"] + 1e4} for one in episodes()],
}


@pytest.mark.parametrize("said", WRONG)
def test_what_looks_wrong_is_said(said: str) -> None:
    assert said in remarks(WRONG[said]())
    assert said not in remarks(episodes())


def test_what_reading_said_comes_first_and_nothing_twice() -> None:
    found: Description = describe(data(WRONG["all rewards are 0"]()), ["it was late", "it was late"])
    assert found.remarks[0] == "it was late"
    assert len(set(found.remarks)) == len(found.remarks) > 1
