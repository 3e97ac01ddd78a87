"""Steps in a row become episodes, and nothing in them is made up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from awr_exp import data
from awr_exp.data.minari import load
from awr_exp.data.steps import Steps, cut
from awr_exp.errors import UserError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return tmp_path


def steps(rows: int, known: bool, **columns: Any) -> Steps:
    """Steps whose observations, and those that they lead to, are their numbers."""
    flags = {name: np.zeros(rows, bool) for name in ("terminated", "truncated", "final", "begins")} | columns
    return Steps(
        observations=np.arange(rows, dtype=np.float32)[:, None],
        actions=np.arange(rows, dtype=np.float32)[:, None],
        rewards=np.arange(rows, dtype=np.float64),
        where=lambda name, row, entry: f"{name} {row}",
        next_observations=np.arange(1, rows + 1, dtype=np.float32)[:, None] if known else None,
        **flags,
    )


@given(st.lists(st.sampled_from("-tcfb"), min_size=2, max_size=30), st.booleans())
def test_episodes_are_runs_of_steps_that_led_to_one_another(kinds: list[str], known: bool) -> None:
    """Of rows that terminate (t), are cut (c), are final (f), begin another episode (b), or none of these."""
    of = lambda kind: np.array([one == kind for one in kinds])  # noqa: E731
    made = steps(len(kinds), known, terminated=of("t"), truncated=of("c"), final=of("f"), begins=of("b"))
    try:
        found = cut(made)
    except UserError:
        return
    used = np.zeros(len(kinds), int)
    for number, (first, stop) in enumerate(zip(found.first, found.stop, strict=True)):
        used[first:stop] += 1
        *before, final = found.observations(made, number)[:, 0]
        assert before == list(range(first, stop))
        inner = kinds[first : stop - 1]
        assert not {"t", "c", "f"} & set(inner)
        assert not made.final[first:stop].any()
        assert found.terminated[number] == (kinds[stop - 1] == "t")
        # What the last step led to, or, where nothing depends on it, the last observation once more.
        assert final == stop or (final == stop - 1 and kinds[stop - 1] == "t" and not known)
        assert "b" not in kinds[first + 1 : stop + (final == stop and not known)]
    assert used.max() == 1
    # A step is given up only where it is not known what it led to.
    for row in np.flatnonzero((used == 0) & ~made.final):
        assert not known or kinds[row] == "b"
        assert kinds[row] != "t"


def test_a_gap_in_the_data_is_not_a_step() -> None:
    made = steps(9, True)
    gapped = {name: np.delete(getattr(made, name), 4, 0) for name in ("observations", "actions", "rewards")}
    flags = {name: np.zeros(8, bool) for name in ("terminated", "truncated", "final", "begins")}
    following = np.delete(made.next_observations, 4, 0)  # type: ignore[arg-type]
    found = cut(Steps(**gapped, **flags, where=made.where, next_observations=following))
    assert found.first.tolist() == [0, 4]
    assert found.stop.tolist() == [4, 8]
    assert found.said == ("1 step led to another observation than the next row's: cut there",)
    shuffled = np.random.default_rng(0).permutation(8)
    mixed = {name: column[shuffled] for name, column in gapped.items()}
    with pytest.raises(UserError, match="put the rows into their order of time"):
        cut(Steps(**mixed, **flags, where=made.where, next_observations=following[shuffled]))


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    made = {
        "observations": rng.normal(size=(30, 2)),
        "actions": rng.uniform(-0.93, 0.88, (30, 2)),
        "rewards": np.ones(30),
    }
    return made | {"terminations": np.arange(30) % 10 == 9} | changes


def test_arrays_become_a_data_set_that_is_read_as_any_other() -> None:
    made = data.from_arrays("test/own-v0", **arrays(), ref_min_score=0.0, ref_max_score=20.0)
    assert made.lengths.tolist() == [10, 10, 10]
    assert made.terminated[made.last].all()
    assert made.info.normalized_score(10.0) == 0.5
    # Bounds are of the data, rounded outward.
    assert made.spec.action_low == pytest.approx((-1, -1), abs=0.1)
    assert (np.array(made.spec.action_low) <= arrays()["actions"].min(0)).all()
    assert (np.array(made.spec.action_high) >= arrays()["actions"].max(0)).all()
    np.testing.assert_array_equal(load("test/own-v0").packed, made.packed)


def test_ends_say_where_episodes_are_and_images_stay_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 2, 2, 3), dtype=np.uint8)
    choices = np.arange(30) % 4
    given = arrays(observations=pixels, actions=choices, terminations=None, episode_ends=[12, 30])
    made = data.from_arrays("test/pixels-v0", **given)
    assert made.lengths.tolist() == [11, 17]
    assert made.spec.num_actions == 4
    assert made.observations().dtype.itemsize == 1
    np.testing.assert_array_equal(made.observations()[:12].reshape(-1, 2, 2, 3), pixels[:12])


ROWS = np.arange(60).reshape(30, 2)
OUTSIDE: dict[str, Any] = {"actions": np.full((30, 2), -0.6), "action_low": [-0.7, -0.5], "action_high": 1}
WRONG: dict[str, dict[str, Any]] = {
    "actions has 29 rows, rewards has 30": {"actions": np.zeros(29)},
    r"observations\[3, 1\] is empty, or no number": {"observations": np.where(ROWS == 7, np.nan, 0)},
    r"rewards\[0\] holds 1e\+200, which is too large": {"rewards": np.full(30, 1e200)},
    r"terminations\[0\] is 2; a flag is true or false": {"terminations": np.full(30, 2)},
    "actions holds <U4, which are no numbers": {"actions": np.full(30, "left")},
    "nothing says where episodes end": {"terminations": None},
    "episode_ends must be whole numbers that rise to 30": {"episode_ends": [10, 20]},
    "actions are whole numbers from 0 to 29000, which is too many": {"actions": np.arange(30) * 1000},
    r"actions\[0, 1\] holds .* it is outside the bounds -0.5 to 1": OUTSIDE,
    "action_low has 3 numbers, and actions have 2": {"action_low": [0, 0, 0]},
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_with_arrays_is_named_and_nothing_is_written(message: str, root: Path) -> None:
    with pytest.raises(UserError, match=message):
        data.from_arrays("test/own-v0", **arrays(**WRONG[message]))
    assert not list(root.rglob("*.hdf5"))
