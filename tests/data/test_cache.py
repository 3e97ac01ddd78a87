"""The flat cache is what it was made of, or is made anew."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from awr_exp.data import cache
from awr_exp.data.minari import load
from awr_exp.errors import UserError
from tests.data.test_minari import ID, data_file, make

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make()
    return tmp_path / "minari"


def change_metadata(root: Path, **facts: object) -> None:
    path = root / ID / "data" / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def cached(monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether loading reads the cache alone."""
    with monkeypatch.context() as patch:
        patch.setattr(h5py, "File", None)
        try:
            load(ID)
        except TypeError:
            return False
    return True


def test_metadata_are_followed(root: Path) -> None:
    assert load(ID).spec.action_high == (1, 2)
    change_metadata(root, ref_min_score=1.0, ref_max_score=3.0, env_spec=json.dumps({"id": "Pendulum-v1"}))
    info = load(ID).info
    assert (info.normalized_score(2.0), info.env_spec.id) == (0.5, "Pendulum-v1")
    space = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-4, -4], "high": [4, 4]}
    change_metadata(root, action_space=json.dumps(space))
    assert load(ID).spec.action_high == (4, 4)


def test_an_edit_without_a_trace_in_size_and_time_is_followed(root: Path) -> None:
    before = data_file(root).stat()
    load(ID)
    with h5py.File(data_file(root), "r+") as file:
        file["episode_0/rewards"][0] = 42.0
    os.utime(data_file(root), ns=(before.st_atime_ns, before.st_mtime_ns))
    after = data_file(root).stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert load(ID).reward[0] == 42


def test_a_large_file_that_changed_just_now_is_not_kept_yet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SMALL", 0)
    load(ID)
    assert not cached(monkeypatch)
    late = time.time_ns() + 10 * 10**9
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: late)
        load(ID)
    assert cached(monkeypatch)


def test_episodes_in_other_files_are_followed(root: Path) -> None:
    part = data_file(root).parent / "part.hdf5"
    with h5py.File(data_file(root), "r+") as file, h5py.File(part, "w") as other:
        file.copy("episode_2", other)
        del file["episode_2"]
        file["episode_2"] = h5py.ExternalLink("part.hdf5", "episode_2")
    load(ID)
    with h5py.File(part, "r+") as other:
        other["episode_2/rewards"][0] = 42.0
    assert load(ID).reward[5] == 42
    part.unlink()
    with pytest.raises(UserError, match="episode_2: it is kept in another file, which cannot be opened"):
        load(ID)


def test_arrays_in_other_files_are_refused(root: Path, tmp_path: Path) -> None:
    """A change of theirs would not be seen, and they could be any file."""
    (tmp_path / "raw").write_bytes(bytes(56))
    layout = h5py.VirtualLayout((7,), "f8")
    kinds: dict[str, Callable[[h5py.Group], object]] = {
        "raw": lambda group: group.create_dataset("rewards", (7,), "f8", external=[(str(tmp_path / "raw"), 0, 56)]),
        "virtual": lambda group: group.create_virtual_dataset("rewards", layout),
        "linked": lambda group: group.__setitem__("rewards", h5py.ExternalLink(str(tmp_path / "o.hdf5"), "x")),
    }
    with h5py.File(tmp_path / "o.hdf5", "w") as other:
        other["x"] = np.zeros(7)
    for put in kinds.values():
        with h5py.File(data_file(root), "r+") as file:
            del file["episode_2/rewards"]
            put(file["episode_2"])
        with pytest.raises(UserError, match="episode_2: rewards is kept in another file; write the data set anew"):
            load(ID)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def plant_pickle(path: Path) -> None:
    np.save(path, np.array([os.abort]), allow_pickle=True)


PLANTED: dict[str, Callable[[Path], object]] = {
    "a bit": damage,
    "a pickle": plant_pickle,
    "others' numbers": lambda path: np.save(path, np.zeros_like(np.load(path))),
    "another form": lambda path: np.save(path, np.asfortranarray(np.load(path))),
    "other types": lambda path: np.save(path, np.load(path).astype(np.float64)),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link": lambda path: (path.rename(path.with_suffix(".x")), path.symlink_to(path.with_suffix(".x"))),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_was_planted_or_damaged_is_made_anew(what: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(ID)
    assert cached(monkeypatch)
    (path,) = (root / ID / "data" / ".awr_exp_cache").glob("*.npy")
    PLANTED[what](path)
    assert not cached(monkeypatch)
    assert torch.equal(load(ID).packed, first.packed)
    assert cached(monkeypatch)


@pytest.mark.parametrize(
    "facts",
    ["", "[]", "{}", "null", "[" * 100_000, '{"format": 2, "made_of": {}}', '{"format": 2, "made_of": 3}', "\udcff"],
)
def test_facts_that_are_none_are_made_anew(facts: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(ID)
    (path,) = (root / ID / "data" / ".awr_exp_cache").glob("*.json")
    path.write_text(facts, errors="surrogateescape")
    assert not cached(monkeypatch)
    assert len(load(ID)) == 12
    assert cached(monkeypatch)


def test_facts_are_sealed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lengths and bounds belong to the numbers: one that is changed alone is found out."""
    load(ID)
    (path,) = (root / ID / "data" / ".awr_exp_cache").glob("*.json")
    facts = json.loads(path.read_text())
    for lengths in ([1, 4, 7], [10**30]):
        path.write_text(json.dumps(facts | {"lengths": lengths}))
        assert not cached(monkeypatch)
    assert load(ID).longest == 7


def test_nobody_elses_cache_is_read(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(ID)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    place = root / ID / "data" / ".awr_exp_cache"
    if place.stat().st_uid != 0:
        assert not cached(monkeypatch)
    # A link could lead anywhere, and is not written to.
    (tmp_path / "elsewhere").mkdir()
    place.rename(tmp_path / "old")
    place.symlink_to(tmp_path / "elsewhere")
    load(ID)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_new_cache_takes_the_place_of_the_old_one(root: Path) -> None:
    for reward in range(3):
        with h5py.File(data_file(root), "r+") as file:
            file["episode_0/rewards"][0] = reward
        load(ID)
    assert len(list((root / ID / "data" / ".awr_exp_cache").iterdir())) == 2


def test_what_changes_while_it_is_read_is_being_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, number = cache.state, iter(range(100))
    monkeypatch.setattr(cache, "state", lambda file: [*state(file), next(number)])
    with pytest.raises(UserError, match=r"is being written: .*main_data\.hdf5 has changed; wait until that is done"):
        load(ID)
