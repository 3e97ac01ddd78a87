"""What is recorded is what happened, in whole episodes, and a recording that is cut short goes on."""

import shutil
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest

from awr_exp.data import export
from awr_exp.data.minari import load
from awr_exp.data.recording import Recording
from awr_exp.envs.build import task
from awr_exp.envs.make import gym
from awr_exp.envs.rollout import Driver, Rollout
from awr_exp.errors import UserError
from awr_exp.networks.numpy_policy import Uniform
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
    return Recorder("test/mine-v0", folder=tmp_path, spec=spec, **({"envs": 2} | defaults | options))


def played(spec: Spec, own: Recorder, count: int, steps: int = 25, driver: Driver | None = None) -> list[Any]:
    """Rollouts of one member's environments, each shown to the recorder."""
    driver = driver or Driver(MAKE[spec], spec.obs_dim, [1], list(range(own.envs)))
    seen: list[Any] = []
    done = np.ones((1, own.envs), bool)
    for number in range(count):
        rollout = driver.play(Bold(spec), steps, number)
        ends = rollout.done
        own.add(number * steps * own.envs, rollout, 0, np.concatenate([done, ends[:-1, 0]]))
        done = ends[-1]
        seen.append(rollout)
    return seen


def episodes(seen: list[Any]) -> list[dict[str, Any]]:
    """Whole ones, by environment, written out; begin, end: their first row, and that after their last."""
    whole = {name: np.concatenate([getattr(s, name)[:, 0] for s in seen]) for name in vars(seen[0]) if name in FIELDS}
    found: list[dict[str, Any]] = []
    for env in range(whole["obs"].shape[1]):
        begin = 0
        for end in (np.flatnonzero(whole["terminated"][:, env] | whole["truncated"][:, env]) + 1).tolist():
            found.append({name: part[begin:end, env] for name, part in whole.items()} | {"begin": begin, "end": end})
            begin = end
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


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (200, 1), (201, 2), (1000, 5), (100_000, 16)])
def test_the_last_steps_are_those_of_the_last_episodes(steps: int, count: int, tmp_path: Path) -> None:
    """Of eight environments whose episodes of 200 steps end together, and which have not gone far in the next ones."""
    own = recorder(tmp_path, PENDULUM, last_steps=steps, envs=8)
    seen = played(PENDULUM, own, 17)
    own.finish(MAKE[PENDULUM], 0.0)
    found = episodes(seen)
    newest = sorted(range(16), key=lambda number: found[number]["end"], reverse=True)[:count]
    expected = [found[number]["reward"].sum() for number in sorted(newest)]
    np.testing.assert_allclose(load("test/mine-v0").info.episode_returns, expected, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 90, 300])
def test_the_last_steps_of_episodes_of_any_length(steps: int, tmp_path: Path) -> None:
    own = recorder(tmp_path, CARTPOLE, last_steps=steps)
    found = sorted(episodes(played(CARTPOLE, own, 20)), key=lambda episode: episode["end"])
    own.finish(MAKE[CARTPOLE], 500.0)
    count = next(n for n in range(len(found)) if sum(len(episode["reward"]) for episode in found[-n:]) >= steps and n)
    expected = [episode["reward"].sum() for episode in found[-count:]]
    assert sorted(load("test/mine-v0").info.episode_returns) == sorted(expected)


@pytest.mark.parametrize(("spec", "envs"), [(CARTPOLE, 2), (PENDULUM, 8)])
def test_chosen_checkpoints_are_windows_in_which_episodes_begin(spec: Spec, envs: int, tmp_path: Path) -> None:
    """The long ones too: those of Pendulum, of 1,600 steps in eight environments, are longer than a window."""
    own = recorder(tmp_path, spec, checkpoints=[100, 1600], checkpoint_steps=300, envs=envs)
    found = episodes(played(spec, own, 40))
    own.finish(MAKE[spec], 500.0)
    windows = (range(100, 400), range(1600, 1900))
    expected = [e["reward"].sum() for e in found if any(envs * e["begin"] in window for window in windows)]
    assert 2 < len(expected) < len(found)
    np.testing.assert_allclose(load("test/mine-v0").info.episode_returns, expected, rtol=1e-5)


def test_without_an_episode_to_keep_no_data_set_is_written(tmp_path: Path) -> None:
    own = recorder(tmp_path, PENDULUM, checkpoints=[2], checkpoint_steps=300)
    played(PENDULUM, own, 16)
    reason = str(own.finish(MAKE[PENDULUM], 0.0))
    assert "was not written: no episode to keep has ended (give a larger trainer.env_steps or" in reason


def test_a_recording_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    own = recorder(tmp_path, CARTPOLE)
    driver = Driver(MAKE[CARTPOLE], 4, [1], [0, 1])
    seen = played(CARTPOLE, own, 2, driver=driver)
    metadata = own.metadata()
    assert metadata == {"steps": 50, "open": [True, True], "ended": False}
    # What came after the checkpoint, torn.
    with (tmp_path / "recording" / "steps.bin").open("ab") as file:
        file.write(b"123" * 500)
    again = recorder(tmp_path, CARTPOLE)
    again.resume(metadata)
    assert again.metadata() == metadata
    ends = seen[-1].terminated | seen[-1].truncated
    rollout = driver.play(Bold(CARTPOLE), 25, 2)
    first = np.concatenate([ends[-1], rollout.done[:-1, 0]])
    again.add(100, rollout, 0, first)
    again.finish(MAKE[CARTPOLE], 500.0)
    assert sorted(load("test/mine-v0").info.episode_returns) == sorted(
        e["reward"].sum() for e in episodes([*seen, rollout])
    )


def test_steps_that_are_lost_leave_a_gap_and_nothing_torn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a checkpoint that reached the disk before the steps did."""
    own, driver = recorder(tmp_path, CARTPOLE), Driver(MAKE[CARTPOLE], 4, [1], [0, 1])
    seen = played(CARTPOLE, own, 4, driver=driver)
    path = tmp_path / "recording" / "steps.bin"
    metadata = own.metadata()
    with path.open("ab") as file:
        file.truncate(path.stat().st_size * 3 // 5 + 7)
    again = recorder(tmp_path, CARTPOLE)
    again.resume(metadata)
    assert "has lost steps" in caplog.text
    ends = seen[-1].terminated | seen[-1].truncated
    rollout = driver.play(Bold(CARTPOLE), 100, 4)
    ended = rollout.done
    again.add(200, rollout, 0, np.concatenate([ends[-1], ended[:-1, 0]]))
    again.finish(MAKE[CARTPOLE], 500.0)
    before = {name: np.concatenate([getattr(one, name) for one in seen])[:60] for name in FIELDS}
    expected = [episode["reward"].sum() for episode in episodes([SimpleNamespace(**before)])]
    later = {name: getattr(rollout, name) for name in FIELDS}
    for env in range(2):
        begin = 0 if ends[-1, 0, env] else np.flatnonzero(ended[:, 0, env])[0] + 1
        twice = {name: np.repeat(part[begin:, :, [env]], 2, 2) for name, part in later.items()}
        whole = episodes([SimpleNamespace(**twice)])
        expected += [episode["reward"].sum() for episode in whole[: len(whole) // 2]]
    assert len(expected) > 8
    assert sorted(load("test/mine-v0").info.episode_returns) == sorted(expected)


@pytest.mark.parametrize("resumes", [False, True])
def test_a_disk_that_is_full_for_a_while_costs_what_comes_from_then_on(
    resumes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own, driver = recorder(tmp_path, CARTPOLE), Driver(MAKE[CARTPOLE], 4, [1], [0, 1])
    seen = played(CARTPOLE, own, 4, driver=driver)

    def full(**parts: Any) -> None:
        with (tmp_path / "recording" / "steps.bin").open("ab") as file:
            file.write(b"a torn row")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(own.recording, "add", full)
        own.add(200, driver.play(Bold(CARTPOLE), 25, 4), 0, np.zeros((25, 2), bool))
    (line,) = caplog.messages
    assert "recording ends at environment step 200, and its data set gets the episodes that were whole by then" in line
    assert "steps.bin cannot be written (No space left on device)" in line
    if resumes:
        metadata = own.metadata()
        own = recorder(tmp_path, CARTPOLE)
        own.resume(metadata)
        assert "recording ended before: what comes from now on is not recorded" in caplog.text
    own.add(250, driver.play(Bold(CARTPOLE), 25, 5), 0, np.zeros((25, 2), bool))
    own.finish(MAKE[CARTPOLE], 500.0)
    expected = [e["reward"].sum() for e in episodes(seen)]
    assert len(expected) > 4
    np.testing.assert_allclose(load("test/mine-v0").info.episode_returns, expected)


def test_a_recording_from_before_the_disk_was_full_goes_on_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed from a checkpoint that had not seen it."""
    own, driver = recorder(tmp_path, CARTPOLE), Driver(MAKE[CARTPOLE], 4, [1], [0, 1])
    seen = played(CARTPOLE, own, 4, driver=driver)
    metadata, ends = own.metadata(), seen[-1].terminated | seen[-1].truncated
    rollout = driver.play(Bold(CARTPOLE), 25, 4)
    first = np.concatenate([ends[-1], rollout.done[:-1, 0]])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: (tmp_path / "nowhere" / "file").touch())
        own.add(200, rollout, 0, first)
    assert own.metadata()["ended"]
    again = recorder(tmp_path, CARTPOLE)
    again.resume(metadata)
    again.add(200, rollout, 0, first)
    again.finish(MAKE[CARTPOLE], 500.0)
    expected = [e["reward"].sum() for e in episodes([*seen, rollout])]
    np.testing.assert_allclose(load("test/mine-v0").info.episode_returns, expected)


def test_a_recording_that_is_deleted_costs_the_recording_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 2)
    shutil.rmtree(tmp_path / "recording")
    played(CARTPOLE, own, 2)
    assert "cannot be written (No such file or directory)" in caplog.text
    assert own.metadata()["steps"] == 0
    reason = str(own.finish(MAKE[CARTPOLE], 500.0))
    assert "data set test/mine-v0 was not written: no episode to keep has ended" in reason


def test_a_data_set_that_cannot_be_written_keeps_its_steps(tmp_path: Path) -> None:
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 4)
    shutil.rmtree(tmp_path / "minari")
    (tmp_path / "minari").write_text("in the way")
    reason = str(own.finish(MAKE[CARTPOLE], 500.0))
    assert "data set test/mine-v0 was not written: " in reason
    assert "set MINARI_DATASETS_PATH to a folder that can" in reason
    assert (tmp_path / "recording" / "steps.bin").stat().st_size > 0


def test_an_id_must_be_one_and_free(tmp_path: Path) -> None:
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 8)
    own.finish(MAKE[CARTPOLE], 500.0)
    with pytest.raises(UserError, match=r"'test/mine-v0' is in .* already: choose another recorder\.dataset_id"):
        recorder(tmp_path / "other", CARTPOLE)
    # Minari takes no namespace of one letter.
    for id in ("nonsense", "a/b-v0", "../b-v0"):
        with pytest.raises(UserError, match=f"'{id}' is not a Minari id"):
            Recorder(id, None, None, 1, tmp_path, CARTPOLE, 2)


def test_a_run_that_goes_on_after_its_data_set_was_written_keeps_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether it was killed before it could say so, or gets more steps."""
    caplog.set_level("INFO")
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 8)
    metadata = own.metadata()
    shutil.copytree(tmp_path / "recording", tmp_path / "kept")
    own.finish(MAKE[CARTPOLE], 500.0)
    written = load("test/mine-v0").packed
    for killed in (True, False):
        if killed:
            shutil.copytree(tmp_path / "kept", tmp_path / "recording")
        again = recorder(tmp_path, CARTPOLE)
        assert "data set test/mine-v0 is written: what comes from now on is not recorded" in caplog.text
        again.resume(metadata)
        played(CARTPOLE, again, 2)
        again.finish(MAKE[CARTPOLE], 500.0)
        assert not (tmp_path / "recording").exists()
    assert bool((load("test/mine-v0").packed == written).all())


def test_an_id_that_is_taken_meanwhile_loses_nothing(tmp_path: Path) -> None:
    own, other = recorder(tmp_path, CARTPOLE), recorder(tmp_path / "other", CARTPOLE)
    played(CARTPOLE, other, 4)
    seen = played(CARTPOLE, own, 8)
    metadata = own.metadata()
    other.finish(MAKE[CARTPOLE], 500.0)
    reason = str(own.finish(MAKE[CARTPOLE], 500.0))
    assert "choose another recorder.dataset_id; its steps are kept, and try again: " in reason
    assert reason.endswith(f"-m awr_exp.main resume={tmp_path}")
    with pytest.raises(UserError, match=r"choose another recorder\.dataset_id"):
        recorder(tmp_path, CARTPOLE)
    again = Recorder("test/else-v0", None, None, 1, tmp_path, CARTPOLE, 2)
    again.resume(metadata)
    again.finish(MAKE[CARTPOLE], 500.0)
    found = load("test/else-v0").info.episode_returns
    np.testing.assert_allclose(found, [e["reward"].sum() for e in episodes(seen)])


def test_windows_hold_wherever_rollouts_begin(tmp_path: Path) -> None:
    """Rollouts of 25 steps are recorded as those of one step are, and as those of a run that goes on after each."""
    options = {"checkpoints": [90, 610], "checkpoint_steps": 233}
    packed, kept = [], []
    for number, (steps, resumes) in enumerate(((25, False), (1, False), (25, True))):
        begun: Any = partial(Recorder, f"test/n{number}-v0", None, **options)
        own = begun(folder=tmp_path / f"{number}", spec=CARTPOLE, envs=2)
        (whole,) = played(CARTPOLE, recorder(tmp_path / f"all{number}", CARTPOLE), 1, steps=500)
        ends = np.concatenate([np.ones((1, 2), bool), whole.done[:, 0]])
        for begin in range(0, 500, steps):
            parts = {name: part[begin : begin + steps] for name, part in vars(whole).items() if name in FIELDS}
            rollout = Rollout(**parts, episode=whole.episode, failures=whole.failures, reasons=())
            own.add(2 * begin, rollout, 0, ends[begin : begin + steps])
            if resumes:
                metadata = own.metadata()
                own = begun(folder=tmp_path / f"{number}", spec=CARTPOLE, envs=2)
                own.resume(metadata)
        kept.append(own.metadata()["steps"])
        own.finish(MAKE[CARTPOLE], 500.0)
        packed.append(load(f"test/n{number}-v0").packed.numpy())
    np.testing.assert_array_equal(packed[0], packed[1])
    np.testing.assert_array_equal(packed[0], packed[2])
    # What no episode of a window has gone on into is not on the disk.
    assert kept[0] == kept[1] == kept[2] < 333


def test_episodes_are_written_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, seen, whole = recorder(tmp_path, CARTPOLE), [], Recording.episodes
    played(CARTPOLE, own, 8)

    def counted(self: Recording, last: int | None) -> Any:
        for episode in whole(self, last):
            seen.append(weakref.ref(episode["obs"]))
            yield episode
            del episode
            assert sum(one() is not None for one in seen) <= 1

    monkeypatch.setattr(Recording, "episodes", counted)
    own.finish(MAKE[CARTPOLE], 500.0)
    assert len(seen) == 2 * load("test/mine-v0").info.episodes > 10


def test_a_disk_that_fills_while_a_data_set_is_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 8)
    free = iter([2**40, 2**40, 2**20])
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=next(free)))
        reason = str(own.finish(MAKE[CARTPOLE], 500.0))
    assert "cannot be written (less than 32 MB would be left of its disk)" in reason
    assert not list((tmp_path / "minari" / "test").iterdir())
    again = recorder(tmp_path, CARTPOLE)
    again.finish(MAKE[CARTPOLE], 500.0)
    assert load("test/mine-v0").info.episodes > 5


def test_a_data_set_has_a_place_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "minari").write_text("in the way")
    with pytest.raises(UserError, match="set MINARI_DATASETS_PATH to a folder that can"):
        recorder(tmp_path, CARTPOLE)


def test_an_environment_that_fails_costs_reference_scores_at_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(gymnasium.Wrapper):
        def reset(self, **options: Any) -> Any:
            raise RuntimeError("no licence")

    own = recorder(tmp_path, CARTPOLE)
    played(CARTPOLE, own, 8)
    own.finish(lambda: Failing(MAKE[CARTPOLE]()), 500.0)
    assert "gets no reference scores: the environment failed: RuntimeError: no licence" in caplog.text
    assert load("test/mine-v0").info.ref_min_score is None


def test_scores_are_left_out_unless_the_best_is_clearly_above_random() -> None:
    low, high = module.reference(MAKE[CARTPOLE], 500.0) or (0, 0)
    assert 10 < low < 40 < high == 500
    assert module.reference(MAKE[CARTPOLE], low) is None


def test_an_environment_that_no_data_set_can_name_is_refused() -> None:
    gymnasium.register("Unnamed-v0", lambda: MAKE[CARTPOLE]().unwrapped)
    with pytest.raises(UserError, match=r"no data set can name this environment: .*Register it with text alone"):
        export.check_env(gymnasium.make("Unnamed-v0"))


def test_actions_are_recorded_in_the_environments_own_numbers(tmp_path: Path) -> None:
    make_env = gym(None, None, "Counting-v0")
    spec = task(make_env)
    export.check_env(make_env())
    own = recorder(tmp_path, spec)
    driver = Driver(make_env, spec.obs_dim, [1], [0, 1])
    played(spec, own, 1, driver=driver)
    own.finish(make_env, 100.0)
    data = load("test/mine-v0")
    batch = data.sample(np_rows(len(data)))
    assert data.spec == spec == Spec(1, num_actions=3, action_start=5)
    with h5py.File(export.root() / "test/mine-v0" / "data" / "main_data.hdf5") as file:
        assert {int(action) for episode in file.values() for action in episode["actions"]} == {5, 6, 7}
    assert set(batch.action[0].tolist()) == {0, 1, 2}
    # Its rewards are the actions as it got them. Both ways of ending at once count as termination.
    assert bool((batch.reward == batch.action + 5).all())
    assert data.terminated.sum() == data.info.episodes == 10
    assert not bool(batch.truncated.any())


class Counting(gymnasium.Env):
    """Actions 5 to 7 are its rewards; it terminates and is truncated at once; its observations are of float64."""

    observation_space = gymnasium.spaces.Box(0, 9, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def reset(self, **options: Any) -> Any:
        self.count = 0
        return np.zeros(1), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return np.full(1, float(self.count)), float(action), self.count == 5, self.count == 5, {}


gymnasium.register("Counting-v0", f"{__name__}:Counting")
