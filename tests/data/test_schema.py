"""Rows of named columns: what is written under a name is read under it, and bytes stay bytes from a file to a batch."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from awr_exp.data.minari import load
from awr_exp.data.recording import Recording
from awr_exp.data.replay import Replay
from awr_exp.data.schema import STORED, TRANSITION, Schema
from awr_exp.errors import UserError
from awr_exp.layout import Entry
from awr_exp.math.advantages import LambdaReturn
from awr_exp.networks.mlp import MLP
from awr_exp.training import native
from awr_exp.types import Batch, Spec
from tests.conftest import make_awr
from tests.data.test_minari import BOX, make, write

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

SHAPES = st.lists(st.integers(1, 4), max_size=2).map(tuple)
ENTRIES = st.lists(
    st.tuples(SHAPES, st.sampled_from(["uint8", "float32", "float64", "choices"])), min_size=1, max_size=4
)
IMAGE = Spec(12, 2, None, (-1.0, -1.0), (1.0, 1.0), observation=(Entry((), (2, 2, 3), dtype="uint8"),))


def spec_of(parts: list[tuple[tuple[int, ...], str]], actions: int | None) -> Spec:
    entries = tuple(
        Entry((f"part{number}",), shape, dtype=dtype)
        if dtype != "choices"
        else Entry((f"part{number}",), shape, (2,) * math.prod(shape), (0,) * math.prod(shape), "uint8")
        for number, (shape, dtype) in enumerate(parts)
    )
    width = sum(entry.width for entry in entries)
    bounds = {} if actions else {"action_dim": 2, "action_low": (-1.0, -1.0), "action_high": (1.0, 1.0)}
    return Spec(width, num_actions=actions, observation=entries, **bounds)


def random_values(spec: Spec, names: tuple[str, ...], *shape: int) -> dict[str, torch.Tensor]:
    """Of every column; observations are whole numbers that any type has."""
    values: dict[str, torch.Tensor] = {}
    for name in names:
        if name in ("obs", "next_obs"):
            values[name] = torch.randint(0, 256, (*shape, spec.obs_dim)).float()
        elif name == "action":
            values[name] = torch.randint(spec.num_actions, shape) if spec.num_actions else torch.rand(*shape, 2)
        elif name == "mark":
            values[name] = torch.randint(-1, 2, shape)
        else:
            values[name] = torch.rand(shape) if name == "reward" else torch.rand(shape) < 0.5
    return values


@given(ENTRIES, st.sampled_from([None, 3]), st.sampled_from([STORED, TRANSITION, (*TRANSITION, "mark")]))
def test_columns_are_read_as_they_were_written(parts: Any, actions: int | None, names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    spec = spec_of(parts, actions)
    schema, values = Schema(spec, names), random_values(spec, names, 3, 7)
    rows = schema.write(torch.zeros(3, 7, schema.width), values)
    at = torch.tensor([4, 0, 4])
    for name, own in values.items():
        found = schema.read(rows, name)
        assert torch.equal(found.to(own.dtype), own), name
        # A gather of rows is one of each column, and of a column one of its own numbers alone.
        assert torch.equal(schema.read(rows.index_select(1, at), name), found[:, at])
        assert torch.equal(schema.read(rows[1], name, at), found[1, at])
        assert found.dtype == own.dtype or name in ("obs", "next_obs")
    begin = 0
    for entry in spec.entries:
        part = schema.view(rows, "obs", *entry.path)
        assert part.dtype == getattr(torch, entry.kept)
        assert torch.equal(part.float(), values["obs"][..., begin : begin + entry.width])
        begin += entry.width


@given(ENTRIES)
def test_a_row_takes_as_much_memory_as_its_numbers(parts: Any) -> None:
    spec = spec_of(parts, None)
    sizes = [entry.width * (1 if entry.kept == "uint8" else 4) for entry in spec.entries]
    # Before a number of 4 bytes there may be up to 3 that are idle.
    assert 0 <= 4 * Schema(spec, STORED).width - sum(sizes) - 4 * (2 + 3) <= 3 * len(sizes)


def test_floats_lie_side_by_side_as_they_always_did() -> None:
    """So that one gather fetches a row, and replays of earlier checkpoints are read."""
    schema = Schema(Spec(3, 2, None, (-1.0, -1.0), (1.0, 1.0)), TRANSITION)
    rows = torch.arange(11.0).view(1, 11)
    assert schema.width == 11
    assert [schema.views(rows, name)[0].tolist()[0] for name in TRANSITION] == [
        [0, 1, 2], [3, 4, 5], [6, 7], [8], [9], [10]
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [0.5, -1.0, 256.0, math.nan])
def test_what_is_no_byte_is_not_made_one(wrong: float) -> None:
    schema, values = Schema(IMAGE, STORED), random_values(IMAGE, STORED, 2)
    values["obs"][1, 3] = wrong
    with pytest.raises(UserError, match="observations hold numbers that are no uint8, as their space says"):
        schema.write(torch.zeros(2, schema.width), values)


@pytest.fixture
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("shape", [(16, 16, 3), (768,)])
def test_images_are_bytes_from_a_file_to_a_batch(shape: tuple[int, ...]) -> None:
    image = spaces.Box(0, 255, shape, np.uint8)
    dataset = make(observation=image, jpeg_encoding=False)
    episodes = [episode.observations.reshape(-1, 768) for episode in dataset.iterate_episodes()]
    for _ in range(2):
        # The second time from the cache.
        data = load(dataset.id)
        assert data.packed.numel() * 4 == len(data.packed) * (768 + 4 * 5)
        batch = data.sample(torch.arange(len(data)).unsqueeze(0))
        for name, chosen in (("obs", slice(None, -1)), ("next_obs", slice(1, None))):
            own = getattr(batch, name)[0]
            assert own.dtype == torch.uint8
            np.testing.assert_array_equal(own, np.concatenate([episode[chosen] for episode in episodes]))
    seen = np.concatenate(episodes).astype(np.float64)
    mean, std = data.obs_statistics()
    # All pixels of an image are normalised alike.
    axis = 0 if len(shape) == 1 else None
    np.testing.assert_allclose(mean, np.broadcast_to(seen.mean(axis), 768), rtol=1e-6)
    np.testing.assert_allclose(std, np.broadcast_to(seen.std(axis), 768), rtol=1e-6)
    replay = Replay(data.spec, 2, 2, 10, data=data)
    assert replay.ring.numel() * 4 == 2 * (12 + 10) * (768 + 4 * 5)
    kept = replay.sample(torch.arange(len(replay)).unsqueeze(0))
    assert torch.equal(kept.obs, batch.obs.expand(2, -1, -1))


@pytest.mark.usefixtures("_root")
def test_a_camera_beside_other_numbers_stays_one_of_bytes() -> None:
    space = spaces.Dict({"camera": spaces.Box(0, 255, (8, 8), np.uint8), "x": BOX})
    dataset = make(observation=space, jpeg_encoding=False)
    data = load(dataset.id)
    assert data.packed.shape[1] * 4 == 64 + 4 * (3 + 2 + 3)
    first = next(iter(dataset.iterate_episodes())).observations
    batch = data.sample(torch.arange(4).unsqueeze(0))
    np.testing.assert_array_equal(data.schema.view(data.packed, "obs", "camera")[:5], first["camera"].reshape(5, -1))
    assert batch.obs.dtype == torch.float32
    np.testing.assert_array_equal(batch.obs[0, :, :64], first["camera"].reshape(5, -1)[:4])
    np.testing.assert_array_equal(batch.next_obs[0, :, 64:], first["x"][1:].astype(np.float32))


@pytest.mark.usefixtures("_root")
def test_pixels_in_a_file_of_another_type_are_read_if_they_are_bytes() -> None:
    image, pixels = spaces.Box(0, 255, (4,), np.uint8), np.arange(20).reshape(5, 4)
    write([{"observations": pixels}], image, id="test/whole-v0")
    data = load("test/whole-v0")
    assert data.observations().dtype == torch.uint8
    np.testing.assert_array_equal(data.observations(), pixels)
    for number, wrong in enumerate((pixels / 20, pixels - 1, 20 * pixels)):
        write([{"observations": wrong}], image, id=f"test/other-v{number}")
        with pytest.raises(UserError, match="episode_0: observations holds numbers that its space, of uint8, has not"):
            load(f"test/other-v{number}")


def steps_of_images(members: int, steps: int, envs: int) -> Batch:
    g = torch.Generator().manual_seed(0)
    shape = (members, steps, envs)
    obs = torch.randint(0, 256, (members, steps + 1, envs, 12), generator=g).float()
    ends = torch.rand(shape, generator=g)
    action, reward = torch.rand(*shape, 2, generator=g), torch.randn(shape, generator=g)
    return Batch(obs[:, :-1], action, reward, obs[:, 1:], ends < 0.1, ends > 0.9)


def test_bytes_teach_what_their_numbers_do() -> None:
    """To the bit: a batch becomes what an agent computes with only where it is normalised."""
    learnt = []
    for spec in (IMAGE, replace(IMAGE, observation=())):
        replay = Replay(spec, 2, 2, 40)
        replay.extend(steps_of_images(2, 20, 2))
        agent = make_awr(spec, seeds=[0, 1], dtype=torch.float32, advantage=LambdaReturn(0.9))
        agent.fit_normalizer(torch.full((12,), 128.0), torch.full((12,), 70.0))
        target = agent.targets(replay)["target"]
        rows = torch.arange(0, 40, 3).unsqueeze(0)
        metrics = agent.update(replay.sample(rows, target=target))
        learnt.append(metrics | agent.state_dict() | {"act": agent.act(replay.sample(rows).obs)})
        relu = make_awr(spec, dtype=torch.float32, network=partial(MLP, hidden=(16,), activation="relu"))
        assert native.fits(relu) == (spec is not IMAGE)
    assert replay.schema.width == 12 + 5
    for name, value in learnt[0].items():
        assert torch.equal(value, learnt[1][name]), name


def test_a_replay_of_images_is_restored_and_one_of_floats_is_refused() -> None:
    replay, again = Replay(IMAGE, 2, 2, 20), Replay(IMAGE, 2, 2, 20)
    replay.extend(steps_of_images(2, 13, 2))
    again.load(state_of(replay), replay.added)
    assert torch.equal(again.newest(10).obs, replay.newest(10).obs)
    before = Replay(replace(IMAGE, observation=()), 2, 2, 20)
    before.extend(steps_of_images(2, 13, 2))
    with pytest.raises(UserError, match="keeps observations in another form than this version: begin it anew"):
        again.load(state_of(before), 13)


def state_of(replay: Replay) -> dict[str, torch.Tensor]:
    states = [replay.state(member) for member in range(replay.members)]
    return {name: torch.cat([state[name] for state in states]) for name in states[0]}


def test_a_recording_of_images_is_as_small_and_comes_back(tmp_path: Path) -> None:
    recording, steps = Recording(tmp_path, IMAGE, 1), steps_of_images(1, 30, 1)
    parts = {name: getattr(steps, name)[0].numpy() for name in TRANSITION}
    ends = parts["terminated"] | parts["truncated"]
    first = np.concatenate([np.ones((1, 1), bool), ends[:-1]])
    recording.add(**parts, mark=first)
    assert recording.path.stat().st_size == 30 * (2 * 12 + 4 * 6)
    whole = list(recording.episodes())
    assert len(whole) == ends.sum() > 1
    assert {episode["obs"].dtype for episode in whole} == {np.dtype(np.uint8)}
    for name in ("obs", "next_obs"):
        written = np.concatenate([episode[name] for episode in whole])
        np.testing.assert_array_equal(written, parts[name][: len(written), 0])
