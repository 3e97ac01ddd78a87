"""Minari data sets against Minari's own reader, and every damage by its message."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
import torch
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.serialization import serialize_space

from awr_exp.data import room as room_module
from awr_exp.data.builtin import cartpole_mixed, pendulum_mixed, two_ways
from awr_exp.data.minari import load
from awr_exp.errors import UserError

ID = "test/ragged-v0"
BOX = spaces.Box(-np.inf, np.inf, (3,), np.float64)
ACTION = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "minari"


def stack(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: stack([value[key] for value in values]) for key in values[0]}
    return np.stack(values)


def make(
    lengths: tuple[int, ...] = (4, 1, 7),
    observation: spaces.Space = BOX,
    action: spaces.Space = ACTION,
    id: str = ID,
    **metadata: Any,
) -> minari.MinariDataset:
    """Episodes of the given lengths that terminate, are truncated and are merely cut, in turn."""
    observation.seed(0)
    action.seed(0)
    rng = np.random.default_rng(0)
    buffers = [
        EpisodeBuffer(
            observations=stack([observation.sample() for _ in range(n + 1)]),
            actions=np.stack([action.sample() for _ in range(n)]),
            rewards=rng.normal(size=n).tolist(),
            terminations=[False] * (n - 1) + [i % 3 == 0],
            truncations=[False] * (n - 1) + [i % 3 == 1],
            infos={},
        )
        for i, n in enumerate(lengths)
    ]
    return minari.create_dataset_from_buffers(
        id, buffers, observation_space=observation, action_space=action, author="t", author_email="t@example.invalid",
        code_permalink="none", algorithm_name="none", description="none", **metadata,
    )  # fmt: skip


def write(
    episodes: list[dict[str, Any]],
    observation: spaces.Space = BOX,
    action: spaces.Space = ACTION,
    id: str = ID,
    **metadata: Any,
) -> None:
    """Episodes of four steps, of which some fields are given."""
    observation.seed(0), action.seed(0)
    buffers = []
    for given in episodes:
        own = {
            "observations": np.stack([observation.sample() for _ in range(5)]),
            "actions": np.stack([action.sample() for _ in range(4)]),
            "rewards": np.arange(4.0),
        } | given
        ends = {"terminations": [False] * 3 + [True], "truncations": [False] * 4, "infos": {}}
        buffers.append(EpisodeBuffer(**own | {"rewards": own["rewards"].tolist()} | ends))
    minari.create_dataset_from_buffers(
        id, buffers, observation_space=observation, action_space=action, author="t", author_email="t@example.invalid",
        code_permalink="none", algorithm_name="none", description="none", **metadata,
    )  # fmt: skip


def data_file(root: Path) -> Path:
    return root / ID / "data" / "main_data.hdf5"


def everything(data: Any) -> Any:
    return data.sample(torch.arange(len(data)).reshape(1, -1))


@pytest.mark.parametrize("lengths", [(4, 1, 7), (1,), (1, 1, 1), (12, 3, 3, 9, 2)])
def test_the_content_is_what_minari_reads(lengths: tuple[int, ...]) -> None:
    dataset = make(lengths)
    data = load(ID)
    batch = everything(data)
    episodes = list(dataset.iterate_episodes())
    assert len(data) == sum(lengths)
    np.testing.assert_allclose(batch.obs[0], np.concatenate([e.observations[:-1] for e in episodes]), rtol=1e-6)
    np.testing.assert_allclose(batch.next_obs[0], np.concatenate([e.observations[1:] for e in episodes]), rtol=1e-6)
    np.testing.assert_allclose(batch.action[0], np.concatenate([e.actions for e in episodes]), rtol=1e-6)
    np.testing.assert_allclose(batch.reward[0], np.concatenate([e.rewards for e in episodes]), rtol=1e-6)
    terminated = np.concatenate([e.terminations for e in episodes])
    np.testing.assert_array_equal(batch.terminated[0], terminated)
    # An episode that was merely cut counts as truncated.
    np.testing.assert_array_equal(batch.truncated[0], data.last.numpy() & ~terminated)
    np.testing.assert_array_equal(np.flatnonzero(data.last) + 1, np.cumsum(lengths))
    np.testing.assert_allclose(data.info.episode_returns, [e.rewards.sum() for e in episodes], rtol=1e-5)
    mean, std = data.obs_statistics()
    seen = np.concatenate([e.observations for e in episodes])
    np.testing.assert_allclose(mean, seen.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(std, seen.std(0), rtol=1e-4)


@pytest.mark.parametrize("bounds", [(-np.inf, 0.1), (0.1, np.inf), (0.1, 0.1), (-3.4028235e38, 3.4028235e38)])
def test_rounding_at_a_bound_is_no_mistake(bounds: tuple[float, float]) -> None:
    box = spaces.Box(np.array([0, bounds[0]]), np.array([1, bounds[1]]), dtype=np.float64)
    box.sample = lambda: np.array([0.5, 0.1 * (1 + 1e-6)])  # type: ignore[assignment]
    make(action=box)
    assert len(load(ID)) == 12


def test_spaces_are_flattened_as_gymnasium_does() -> None:
    space = spaces.Dict({"b": spaces.Box(-1, 1, (2, 2), np.float32), "a": spaces.Discrete(3, start=1)})
    dataset = make(observation=space, action=spaces.Discrete(2, start=5))
    batch = everything(load(ID))
    first = next(iter(dataset.iterate_episodes()))
    rows = [{"b": first.observations["b"][t], "a": first.observations["a"][t]} for t in range(4)]
    expected = np.stack([spaces.flatten(dataset.observation_space, row) for row in rows])
    np.testing.assert_allclose(batch.obs[0, :4], expected)
    np.testing.assert_array_equal(batch.action[0, :4], first.actions - 5)


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_images_in_jpeg_are_decoded_and_pixels_are_read(noisy: bool, nested: bool) -> None:
    image = spaces.Box(0, 255, (32, 32, 3), np.uint8)
    if not noisy:
        # All of one length: they lie in the file as one array of bytes.
        image.sample = lambda: np.zeros((32, 32, 3), np.uint8)  # type: ignore[assignment]
    space = spaces.Dict({"camera": image, "x": BOX}) if nested else image
    for id, encoded in ((ID, True), ("test/pixels-v0", False)):
        dataset = make(observation=space, id=id, jpeg_encoding=encoded)
        # As Minari itself decodes them.
        first = next(iter(dataset.iterate_episodes())).observations
        pixels = (first["camera"] if nested else first).reshape(5, -1)
        np.testing.assert_array_equal(load(id).observations()[:5, : 32 * 32 * 3], pixels)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((32, 32, 3), r"episode_1: observations: image 2 cannot be read: "),
        (
            (32, 30, 3),
            r"episode_0: observations: image 0 cannot be read: it is of 32 x 32 pixels, its space of 32 x 30",
        ),
    ],
)
def test_a_damaged_image_is_named(shape: tuple[int, ...], said: str, root: Path) -> None:
    make(lengths=(4, 3), observation=spaces.Box(0, 255, (32, 32, 3), np.uint8))
    with h5py.File(data_file(root), "r+") as file:
        images = file["episode_1/observations"]
        images[2] = images[2][:100]
    metadata = json.loads((root / ID / "data" / "metadata.json").read_text())
    metadata["observation_space"] = serialize_space(spaces.Box(0, 255, shape, np.uint8))
    (root / ID / "data" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=said):
        load(ID)


@pytest.mark.parametrize(
    ("clock", "said"),
    [
        (lambda t: 1.7e9 + t, True),
        (lambda t: np.int64(1.7e9) + t, True),
        (lambda t: 1e5 + 1e-3 * t, True),
        (lambda t: 1.7e9 + 0 * t, False),
        (lambda t: 1.7e9 + 1e6 * t, False),
        (lambda t: 300 + 1e-6 * t, False),
        (lambda t: 1.0 * t, False),
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_a_clock_that_float32_cannot_read_is_named(
    clock: Callable[[Any], Any], said: bool, nested: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = itertools.count()
    own = spaces.Box(-np.inf, np.inf, (2,), np.asarray(clock(np.arange(2))).dtype if nested else np.float64)
    own.sample = lambda: np.array([0, clock(np.int64(next(ticks)))], own.dtype)  # type: ignore[assignment]
    make(lengths=(40, 40), observation=spaces.Dict({"a": BOX, "time": own}) if nested else own)
    for _ in range(2):
        # The second time from the cache.
        caplog.clear()
        load(ID)
        name = "time[1]" if nested else "entry 1 of the observations"
        assert [f"{name} varies little around a large mean" in line for line in caplog.messages] == [True] * said


def test_rewards_and_action_bounds_that_float32_cannot_tell_apart_are_named(caplog: pytest.LogCaptureFixture) -> None:
    write([{"rewards": 1e9 + np.arange(4.0)}])
    for _ in range(2):
        # The second time from the cache.
        caplog.clear()
        load(ID)
        assert "the reward varies little around a large mean, and float32 can hardly tell the values" in caplog.text
    write([{}], action=spaces.Box(1e6, 1e6 + np.arange(1, 3.0), dtype=np.float64), id="test/far-v0")
    with pytest.raises(UserError, match="entry 0 of its actions is from 1000000 to 1000001, between which float32"):
        load("test/far-v0")


@pytest.mark.parametrize(("bound", "said"), [(1.0, False), (500.0, False), (1e6, True), (1e10, True), (1e30, False)])
def test_bounds_that_no_action_comes_near_are_named(bound: float, said: bool, caplog: pytest.LogCaptureFixture) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 2))
    actions[:, 0] = 0
    write([{"actions": actions}], action=spaces.Box(-bound, bound, (2,), np.float64))
    load(ID)
    assert ("entry 1 of its actions is from -" in caplog.text) == said == bool(caplog.messages)


def test_choices_that_float32_does_not_have_are_read() -> None:
    start = 2**25 + 1
    chosen = np.array([0, 1, 2, 1])
    observation, action = spaces.Discrete(3, start=start), spaces.Discrete(3, start=start)
    write([{"observations": start + np.array([2, 1, 0, 0, 2]), "actions": start + chosen}], observation, action)
    batch = everything(load(ID))
    assert batch.action.tolist() == [chosen.tolist()]
    assert batch.obs.argmax(-1).tolist() == [[2, 1, 0, 0]]


def test_a_choice_that_an_observation_has_not_is_named_with_its_place() -> None:
    seen = np.array([[5, 5], [6, 7], [5, 8], [6, 6], [5, 7]])
    space = spaces.Dict(gears=spaces.MultiDiscrete([2, 3], start=[5, 5]))
    write([{"observations": {"gears": own}} for own in (seen[[0, 1, 3, 4, 0]], seen)], space)
    with pytest.raises(
        UserError, match=r"episode_1: observations/gears holds 8 at step 2; its space has 2 x 3 choices"
    ):
        load(ID)


def test_images_with_their_axes_in_another_order_are_refused_and_axes_of_one_are_not(root: Path) -> None:
    image = spaces.Box(0, 255, (4, 5, 3), np.uint8)
    pixels = np.random.default_rng(0).integers(0, 255, (5, 4, 5, 3), np.uint8)
    write([{"observations": pixels.transpose(0, 3, 1, 2)}], image, jpeg_encoding=False)
    with pytest.raises(UserError, match=r"observations has shape \(3, 4, 5\), its space has \(4, 5, 3\)"):
        load(ID)
    for number, shape in enumerate([(5, 60), (5, 1, 4, 5, 3)]):
        write([{"observations": pixels.reshape(shape)}], image, id=f"test/other-v{number}", jpeg_encoding=False)
        np.testing.assert_array_equal(load(f"test/other-v{number}").observations(), pixels.reshape(5, 60))


def test_episodes_are_named_as_they_are_in_the_file(root: Path) -> None:
    make((2, 2, 2, 2), action=spaces.Discrete(2, start=5))
    with h5py.File(data_file(root), "r+") as file:
        del file["episode_1"]
        file["episode_3/actions"][1] = 9
    with pytest.raises(UserError, match=r"episode_3: actions holds 9 at step 1; its space has the whole .* 5 to 6"):
        load(ID)


@pytest.mark.parametrize("kind", ["true ones", "of the next", "alike", "a few"])
def test_episodes_that_run_into_one_another_are_named(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    obs = np.random.default_rng(0).normal(size=(4, 5, 3))
    if kind == "alike":
        obs[:] = 1
    elif kind != "true ones":
        last = 3 if kind == "of the next" else 1
        obs[:last, -1] = obs[1 : last + 1, 0]
    write([{"observations": own} for own in obs])
    load(ID)
    assert ("3 of its episodes end with the very observation that the next" in caplog.text) == (kind == "of the next")


def test_reference_scores_that_are_none_are_said(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    make()
    path = root / ID / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ref_min_score": 3, "ref_max_score": 3}))
    assert load(ID).info.normalized_score(2.0) is None
    assert "has no normalized scores: ref_min_score is 3, ref_max_score 3" in caplog.text


@pytest.mark.parametrize(
    ("env", "own", "scores"),
    [
        ("Hopper-v5", {}, (-20.27, 3234.3)),
        ("Hopper-v5", {"ref_min_score": 1.0}, (1.0, None)),
        ("Hopper-v5", {"ref_min_score": 1.0, "ref_max_score": 2.0}, (1.0, 2.0)),
        ("Pendulum-v1", {}, (None, None)),
    ],
)
def test_a_set_without_reference_scores_has_those_of_d4rl(
    root: Path, env: str, own: dict[str, float], scores: tuple[float | None, float | None]
) -> None:
    make()
    path = root / ID / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"env_spec": gymnasium.spec(env).to_json()} | own))
    info = load(ID).info
    assert (info.ref_min_score, info.ref_max_score) == scores


def test_a_space_without_numbers_is_refused_by_name(root: Path) -> None:
    make()
    path = root / ID / "data" / "metadata.json"
    content = json.loads(path.read_text())
    content["observation_space"] = serialize_space(spaces.Dict({"say": spaces.Text(3), "x": BOX}))
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"'{ID}': say of its observations is a Text"):
        load(ID)


def test_options() -> None:
    make((4, 1, 7, 2))
    whole = load(ID)
    best = load(ID, top_percent=50)
    np.testing.assert_allclose(sorted(best.info.episode_returns), np.sort(whole.info.episode_returns)[2:])
    assert len(load(ID, top_percent=0.1).info.episode_returns) == 1
    cut = load(ID, max_transitions=7)
    assert len(cut) == 7
    assert torch.equal(everything(cut).obs, everything(whole).obs[:, :7])
    assert torch.equal(everything(cut).next_obs, everything(whole).next_obs[:, :7])
    assert everything(cut).truncated[0, -1]
    scaled = load(ID, reward_scale=0.5)
    torch.testing.assert_close(scaled.reward, 0.5 * whole.reward)
    np.testing.assert_allclose(scaled.info.episode_returns, whole.info.episode_returns)
    shifted = load(ID, reward_scale=0.5, reward_shift=-1, top_percent=50)
    torch.testing.assert_close(shifted.reward, 0.5 * best.reward - 1)
    np.testing.assert_allclose(shifted.info.episode_returns, best.info.episode_returns)
    # The row after an episode has an observation and nothing else.
    assert shifted.schema.view(shifted.packed, "reward")[shifted.rows[shifted.last] + 1].eq(0).all()
    assert len({d.info.fingerprint for d in (whole, best, cut, scaled, shifted)}) == 5


def change(field: str, at: tuple[int, ...], value: float) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        file[f"episode_2/{field}"][at] = value

    return edit


def replace(field: str, data: Any) -> Callable[[h5py.File], None]:
    def edit(file: h5py.File) -> None:
        del file[f"episode_2/{field}"]
        if data is not None:
            file[f"episode_2/{field}"] = data

    return edit


def empty(file: h5py.File) -> None:
    for name in list(file):
        del file[name]


DAMAGES = {
    "episode_2: rewards holds nan at step 3": change("rewards", (3,), np.nan),
    "episode_2: observations holds inf at step 7": change("observations", (7, 1), np.inf),
    "episode_2: actions holds 2.5 at step 0; it is outside the bounds": change("actions", (0, 1), 2.5),
    "episode_2: observations has 7 rows, 8 were expected": replace("observations", np.zeros((7, 3))),
    "episode_2: actions has shape": replace("actions", np.zeros((7, 3))),
    "episode_2: it has no steps": replace("rewards", np.zeros(0)),
    "episode_2: terminations is missing": replace("terminations", None),
    "episode_2: terminations is set at step 2": change("terminations", (2,), True),
    "episode_2: truncations is set at step 5 of 7": change("truncations", (5,), True),
    r"episode_2: truncations holds 0\.5 at step 6": replace("truncations", np.array([0] * 6 + [0.5])),
    "episode_2: terminations holds nan at step 0": replace("terminations", np.array([np.nan] + [0] * 6)),
    "episode_2: rewards is missing or no list": replace("rewards", 3.0),
    "episode_2: rewards is missing or no lists?": replace("rewards", h5py.Empty("f")),
    r"episode_2: actions holds \|S1, which are no numbers": replace("actions", np.full((7, 2), b"a")),
    "episode_2: rewards holds complex128": replace("rewards", np.zeros(7, complex)),
    "episode_2: actions holds object": replace("actions", np.full((7, 2), "left", h5py.string_dtype())),
    "episode_2: actions has 0 rows": replace("actions", h5py.Empty("f")),
    "episode_2: actions is missing": lambda file: (
        file.pop("episode_2/actions"),
        file.create_group("episode_2/actions"),
    ),
    "episode_2: rewards is missing or": lambda file: (
        file.pop("episode_2"),
        file.create_dataset("episode_2", data=[1]),
    ),
    "takes [0-9.]+ GB, 8 numbers a step: [0-9.]+ GB of memory are free": lambda file: (
        file.pop("episode_2/rewards"),
        file.create_dataset("episode_2/rewards", (10**13,), "f8", chunks=(1000,)),
    ),
    "has no episodes": empty,
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_content_is_named(message: str, root: Path) -> None:
    make()
    with h5py.File(data_file(root), "r+") as file:
        DAMAGES[message](file)
    with pytest.raises(UserError, match=message) as error:
        load(ID)
    assert ID in str(error.value)
    assert "\n" not in str(error.value)
    assert not (data_file(root).parent / ".awr_exp_cache").exists()


def test_damaged_files_are_named(root: Path) -> None:
    make()
    content = data_file(root).read_bytes()
    for size in (len(content) // 2, 100, 0):
        data_file(root).write_bytes(content[:size])
        with pytest.raises(UserError, match=r"main_data\.hdf5 is damaged .*; delete the data set, and fetch it"):
            load(ID)
    data_file(root).unlink()
    with pytest.raises(UserError, match="only hdf5 is read"):
        load(ID)
    (root / ID / "data" / "metadata.json").write_text('{"total')
    with pytest.raises(UserError, match=r"metadata\.json is no JSON in UTF-8"):
        load(ID)


def test_a_missing_data_set_is_answered_with_near_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    with pytest.raises(UserError, match=r"here are test/ragged-v0; dataset\.download=true"):
        load("test/raged-v0")
    for id in ("nonsense", "a/b", "../../etc-v0", "", "a//b-v0"):
        with pytest.raises(UserError, match="not a Minari id" if id else "must be a text"):
            load(id)

    def no_network(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route")

    monkeypatch.setattr("socket.create_connection", no_network)
    with pytest.raises(UserError, match="cannot be downloaded: no connection"):
        load("mujoco/hopper/medium-v0", download=True)


def test_the_cache_is_equal_and_rebuilt_when_stale(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make()
    first = load(ID)
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", None)
        assert torch.equal(load(ID).packed, first.packed)
        patch.setattr(room_module, "free_memory", lambda: 0)
        assert torch.equal(load(ID).packed, first.packed)  # mapped, not read
    (cache,) = (root / ID / "data" / ".awr_exp_cache").glob("*.npy")
    cache.write_bytes(cache.read_bytes()[:50])
    assert torch.equal(load(ID).packed, first.packed)
    with h5py.File(data_file(root), "r+") as file:
        file["episode_0/rewards"][0] = 42.0
    os.utime(data_file(root), (1, 1))
    assert load(ID).reward[0] == 42


def test_a_read_only_folder_is_cached_elsewhere(root: Path, tmp_path: Path) -> None:
    make()
    (root / ID / "data" / ".awr_exp_cache").write_text("a file where the folder should be")
    load(ID)
    assert list((tmp_path / "cache" / "awr_exp").glob("*.npy"))
    assert len(load(ID)) == 12


def test_code_named_by_a_data_set_is_not_followed(root: Path) -> None:
    make()
    path = root / ID / "data" / "metadata.json"
    content = json.loads(path.read_text())
    content["env_spec"] = json.dumps({"id": "Pendulum-v1", "entry_point": "os:abort", "kwargs": {}})
    path.write_text(json.dumps(content))
    assert load(ID).info.env_spec.id == "Pendulum-v1"
    assert not hasattr(load(ID).info.env_spec, "entry_point")


@pytest.mark.parametrize("dataset", [pendulum_mixed, cartpole_mixed, two_ways])
def test_a_builtin_data_set_is_collected_once(
    dataset: Callable[[], Any], datasets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    data = dataset()
    assert data.info.ref_min_score < data.info.return_mean < data.info.ref_max_score
    assert 0 < data.info.normalized_score(data.info.return_mean) < 1
    assert everything(data).truncated.any() == (dataset is not two_ways)
    assert everything(data).terminated.any() == (dataset is not pendulum_mixed)
    assert [path.name for path in (datasets / "awr_exp").iterdir() if path.name.startswith(".")] == []
    monkeypatch.setattr(gymnasium, "make", None)
    assert dataset().info.fingerprint == data.info.fingerprint


def test_a_root_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="set MINARI_DATASETS_PATH to a folder that can"):
        pendulum_mixed()
