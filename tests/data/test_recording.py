"""What is recorded is what happened, in whole episodes, and a recording that is cut short goes on."""

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from awr_exp.data.minari import load
from awr_exp.envs.rollout import Rollouts
from awr_exp.errors import UserError
from awr_exp.networks.acting import Uniform
from awr_exp.training import recorder as module
from awr_exp.training.recorder import Recorder
from awr_exp.types import Spec

CARTPOLE = Spec(4, num_actions=2)
PENDULUM = Spec(3, 1, None, (-2.0,), (2.0,))
MAKE = {CARTPOLE: partial(gymnasium.make, "CartPole-v1"), PENDULUM: partial(gymnasium.make, "Pendulum-v1")}


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr(module, "REFERENCE_EPISODES", 2)


class Bold(Uniform):
    """Actions out of bounds, too."""

    def __call__(self, *arguments: Any) -> Any:
        actions = super().__call__(*arguments)
        return actions if self.spec.discrete else 2 * actions


def recorder(tmp_path: Path, spec: Spec, **options: Any) -> Recorder:
    defaults: dict[str, Any] = {"last_steps": None, "checkpoints": None, "checkpoint_steps": 10}
    return Recorder("test/mine-v0", folder=tmp_path, spec=spec, envs=2, **(defaults | options))


def played(spec: Spec, own: Recorder, stretches: int, steps: int = 25, rollouts: Rollouts | None = None) -> list[Any]:
    """Stretches of one member's two environments, each shown to the recorder."""
    rollouts = rollouts or Rollouts(MAKE[spec], [1], [0, 1])
    seen: list[Any] = []
    done = np.ones((1, 2), bool)
    for number in range(stretches):
        stretch = rollouts.play(Bold(spec), steps, number)
        ends = stretch.terminated | stretch.truncated
        own.add(number * steps * 2, stretch, 0, np.concatenate([done, ends[:-1, 0]]))
        done = ends[-1]
        seen.append(stretch)
    return seen


def episodes(seen: list[Any]) -> list[dict[str, np.ndarray]]:
    """Whole ones, by environment, written out."""
    whole = {name: np.concatenate([getattr(s, name)[:, 0] for s in seen]) for name in vars(seen[0]) if name in FIELDS}
    found = []
    for env in range(2):
        begin = 0
        for end in np.flatnonzero(whole["terminated"][:, env] | whole["truncated"][:, env]):
            found.append({name: part[begin : end + 1, env] for name, part in whole.items()})
            begin = end + 1
    return found


FIELDS = ("obs", "next_obs", "action", "reward", "terminated", "truncated")


@pytest.mark.parametrize("spec", MAKE)
def test_a_recording_becomes_the_data_set_of_its_whole_episodes(spec: Spec, tmp_path: Path) -> None:
    own = recorder(tmp_path, spec)
    expected = episodes(played(spec, own, 17))
    own.finish(MAKE[spec], 300.0)
    data = load("test/mine-v0")
    assert data.info.episodes == len(expected) > 1
    np.testing.assert_allclose(data.info.episode_returns, [e["reward"].sum() for e in expected], rtol=1e-5)
    obs = np.concatenate([np.concatenate([e["obs"], e["next_obs"][-1:]]) for e in expected])
    np.testing.assert_array_equal(data.observations().numpy(), obs)
    actions = np.concatenate([e["action"] for e in expected])
    if spec == PENDULUM:
        assert abs(actions).max() > 2
        actions = actions.clip(-2, 2)
    np.testing.assert_array_equal(data.sample(np_rows(len(data))).action[0].numpy(), actions)
    np.testing.assert_array_equal(data.terminated.numpy(), np.concatenate([e["terminated"] for e in expected]))
    assert data.info.ref_max_score == 300.0
    assert data.info.ref_min_score is not None
    assert data.info.env_spec.id == MAKE[spec].args[0]
    assert not (tmp_path / "recording").exists()


def np_rows(count: int) -> Any:
    import torch

    return torch.arange(count).unsqueeze(0)


def test_the_last_steps_are_those_of_the_last_episodes(tmp_path: Path) -> None:
    own = recorder(tmp_path, PENDULUM, last_steps=900)
    seen = played(PENDULUM, own, 32)
    own.finish(MAKE[PENDULUM], 0.0)
    # 800 steps of each environment: episodes end at 200, 400, 600 and 800; of the last 450, two are whole.
    expected = [episode for number, episode in enumerate(episodes(seen)) if number in (2, 3, 6, 7)]
    np.testing.assert_allclose(
        load("test/mine-v0").info.episode_returns, [e["reward"].sum() for e in expected], rtol=1e-5
    )


def test_chosen_checkpoints_are_windows_of_steps(tmp_path: Path) -> None:
    own = recorder(tmp_path, CARTPOLE, checkpoints=[100, 600], checkpoint_steps=300)
    seen = played(CARTPOLE, own, 20)
    own.finish(MAKE[CARTPOLE], 500.0)
    # Stretches of 50 steps: 2 to 7 and 12 to 17; an episode that began before, or went on into the gap, is not whole.
    expected = []
    for window in (seen[2:8], seen[12:18]):
        before = seen[: next(i for i, s in enumerate(seen) if s is window[0])]
        opened = {env: not (before[-1].terminated | before[-1].truncated)[-1, 0, env] for env in range(2)}
        starts = {env: window[0].obs[0, 0, env] for env in range(2)}
        expected += [
            e
            for e in episodes(window)
            if not any(opened[env] and (e["obs"][0] == starts[env]).all() for env in range(2))
        ]
    found = sorted(load("test/mine-v0").info.episode_returns)
    assert found == sorted(e["reward"].sum() for e in expected)


def test_a_recording_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    own = recorder(tmp_path, CARTPOLE)
    rollouts = Rollouts(MAKE[CARTPOLE], [1], [0, 1])
    seen = played(CARTPOLE, own, 2, rollouts=rollouts)
    facts = own.facts()
    assert facts == {"steps": 50, "gap": False}
    # What came after the checkpoint, torn.
    with (tmp_path / "recording" / "steps.bin").open("ab") as file:
        file.write(b"123" * 500)
    again = recorder(tmp_path, CARTPOLE)
    again.resume(facts)
    assert again.facts() == facts
    ends = seen[-1].terminated | seen[-1].truncated
    stretch = rollouts.play(Bold(CARTPOLE), 25, 2)
    first = np.concatenate([ends[-1], (stretch.terminated | stretch.truncated)[:-1, 0]])
    again.add(100, stretch, 0, first)
    again.finish(MAKE[CARTPOLE], 500.0)
    assert sorted(load("test/mine-v0").info.episode_returns) == sorted(
        e["reward"].sum() for e in episodes([*seen, stretch])
    )


def test_a_full_disk_costs_the_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 2)

    def full(**parts: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own.recording, "add", full)
    played(CARTPOLE, own, 2)
    assert "recording ends here: " in caplog.text
    assert "No space left on device" in caplog.text
    assert not (tmp_path / "recording").exists()
    own.finish(MAKE[CARTPOLE], 500.0)
    assert not (tmp_path / "minari").exists()


def test_a_data_set_that_cannot_be_written_keeps_its_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 4)
    (tmp_path / "minari").write_text("in the way")
    own.finish(MAKE[CARTPOLE], 500.0)
    assert "data set test/mine-v0 was not written: " in caplog.text
    assert "set MINARI_DATASETS_PATH to a folder that can" in caplog.text
    assert (tmp_path / "recording" / "steps.bin").stat().st_size > 0


def test_an_id_must_be_one_and_free(tmp_path: Path) -> None:
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 8)
    own.finish(MAKE[CARTPOLE], 500.0)
    with pytest.raises(UserError, match=r"'test/mine-v0' is in .* already: choose another recorder\.dataset_id"):
        recorder(tmp_path, CARTPOLE)
    with pytest.raises(UserError, match="'nonsense' is not a Minari id"):
        Recorder("nonsense", None, None, 1, tmp_path, CARTPOLE, 2)
