"""What somebody else's data set can have wrong is said in one line, with its true cause."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import h5py
import pytest
from gymnasium import spaces
from minari.serialization import serialize_space

from awr_exp.data.minari import load
from awr_exp.errors import UserError
from tests.data.test_minari import ID, make

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a data set that is as it should be."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make()
    return tmp_path / "minari" / ID / "data"


def refused(id: Any = ID) -> str:
    with pytest.raises(UserError) as error:
        load(id)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_a_data_set_that_another_program_has_locked_is_not_damaged(folder: Path) -> None:
    file = os.open(folder / "main_data.hdf5", os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    message = refused()
    assert "is locked by another program, which may be writing it: wait until that is done" in message
    assert "damaged" not in message
    os.close(file)
    assert len(load(ID)) == 12


CAUSES = {
    "cannot be locked (No locks available), as on some network drives: HDF5_USE_FILE_LOCKING=FALSE": OSError(
        errno.ENOLCK, "unable to lock file, errno = 37, error message = 'No locks available'"
    ),
    "cannot be read: Permission denied": PermissionError(errno.EACCES, "unable to open file"),
    "cannot be read: Input/output error": OSError(errno.EIO, "file read failed: errno = 5"),
    "cannot be read: Too many open files": OSError(errno.EMFILE, "unable to open file"),
    "is open for writing: wait until that is done": OSError("file is already open for write (may use <h5clear file>"),
    "is compressed in a way that is not installed here": OSError("required filter 'blosc' is not registered"),
}


@pytest.mark.parametrize("message", CAUSES)
def test_the_true_cause_is_named(message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h5py, "File", Mock(side_effect=CAUSES[message]))
    said = refused()
    assert message in said
    assert "damaged" not in said


def test_a_file_of_a_newer_version_or_left_open_is_told_from_a_damaged_one(folder: Path) -> None:
    file = folder / "main_data.hdf5"
    content = bytearray(file.read_bytes())
    content[8] = 9
    file.write_bytes(content)
    assert f"is of a newer HDF5 than {h5py.version.hdf5_version}, or damaged" in refused()
    other = folder / "other.hdf5"
    with h5py.File(other, "w", libver="latest") as writing:
        writing.flush()
        file.write_bytes(other.read_bytes())
    assert "is open for writing: wait until that is done, or run h5clear -s" in refused()


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("")


PLACES: dict[str, Callable[[Path], object]] = {
    r"main_data.hdf5 is no file": lambda folder: as_folder(folder / "main_data.hdf5"),
    r"main_data.hdf5 is no file ": lambda folder: as_pipe(folder / "main_data.hdf5"),
    r"metadata.json cannot be read: it is no file": lambda folder: as_folder(folder / "metadata.json"),
    r"metadata.json cannot be read: it is no file ": lambda folder: as_pipe(folder / "metadata.json"),
    r"no main_data.hdf5 (its format is hdf5); only hdf5 is read": lambda folder: (folder / "main_data.hdf5").unlink(),
    r"metadata.json (Minari kept data so before 0.5": lambda folder: (folder / "metadata.json").unlink(),
    r"data is a file where a folder should be": as_file,
    r"minari is a file where a folder should be": lambda folder: as_file(folder.parents[2]),
    r"is not whole: ": shutil.rmtree,
    r"data is missing or empty; delete the data set": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}


@pytest.mark.parametrize("message", PLACES)
def test_what_lies_where_something_else_should_is_named(message: str, folder: Path) -> None:
    PLACES[message](folder)
    assert message.strip() in refused()


def test_no_permission_is_not_a_missing_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
        assert "data: Permission denied" in refused()
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    assert "metadata.json cannot be read: Permission denied" in refused()


BOX = json.loads(serialize_space(spaces.Box(-1, 1, (3,))))
METADATA: dict[str, Any] = {
    "no JSON in UTF-8 (UnicodeDecodeError": b'{"observation_space": "\xff\xfe"}',
    "no JSON in UTF-8 (JSONDecodeError": b"",
    "no JSON in UTF-8 (RecursionError": b"[" * 200_000,
    "names no observation_space": b"[]",
    "names no observation_space or": b'{"observation_space": "x"}',
    """its observation_space cannot be read: '{"type": "Graph"}'""": {"observation_space": '{"type": "Graph"}'},
    "its observation_space cannot be read: 'x' (JSON": {"observation_space": "x"},
    "its action_space cannot be read: '3' (Assertion": {"action_space": "3"},
    "its action_space cannot be read: 3": {"action_space": 3},
    "its action_space cannot be read: ": {"action_space": BOX | {"shape": [10**12], "low": -1}},
    "observations has shape (3,)": {"observation_space": BOX | {"shape": [4], "low": [0] * 4, "high": [1] * 4}},
    "x of its observations is a Text": {"observation_space": serialize_space(spaces.Dict({"x": spaces.Text(3)}))},
    "which leaves nothing to choose": {"action_space": BOX | {"shape": [2], "low": [1, 1], "high": [1, 1]}},
    "its actions are a Text": {"action_space": serialize_space(spaces.Text(3))},
    "of its space has the whole numbers from 0 to 1": {"action_space": serialize_space(spaces.MultiDiscrete([2, 2]))},
    "GB of memory": {"observation_space": serialize_space(spaces.Discrete(10**12))},
}


@pytest.mark.parametrize("message", METADATA)
def test_metadata_that_cannot_be_right_are_named(message: str, folder: Path) -> None:
    path, content = folder / "metadata.json", METADATA[message]
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(content)
    assert message in refused()


IDS = [
    "../../x-v0",
    "/etc/x-v0",
    "a/../b-v0",
    "a b-v0",
    "a-v0\n",
    "a-v0/",
    "a\0b-v0",
    "-v0",
    "v0",
    "a-v",
    3,
    None,
    ["a-v0"],
]


@pytest.mark.parametrize("id", IDS, ids=repr)
def test_ids_that_are_none_are_refused(id: Any) -> None:
    assert ("is not a Minari id" if isinstance(id, str) else "it must be a text") in refused(id)


FACTS: dict[str, tuple[dict[str, Any], str | None]] = {
    "its ref_min_score is left out, which is no number: 'low'": ({"ref_min_score": "low"}, None),
    "its ref_max_score is left out, which is no number: nan": ({"ref_max_score": float("nan")}, None),
    "its ref_max_score is left out, which is no number: True": ({"ref_max_score": True}, None),
    "its env_spec is left out, which cannot be read: it names no id": ({"env_spec": "{}"}, None),
    "its env_spec is left out, which cannot be read: Expecting value": ({"env_spec": "\x1b[31m"}, None),
    "its eval_env_spec is left out, which cannot be read: it names": ({"eval_env_spec": '{"id": "a\\nb"}'}, None),
    "its env_spec is left out, which cannot be read: its max": (
        {"env_spec": '{"id": "Pendulum-v1", "max_episode_steps": "many"}'},
        None,
    ),
    "has 3 episodes, 7 by its metadata.json: it may be incomplete": ({"total_episodes": 7}, None),
}


@pytest.mark.parametrize("message", FACTS)
def test_what_can_be_done_without_is_left_out_with_a_word(
    message: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | FACTS[message][0]))
    info = load(ID).info
    assert message in caplog.text
    assert (info.env_spec, info.eval_env_spec, info.ref_min_score, info.ref_max_score) == (None,) * 4


def test_what_is_called_an_episode_and_is_none_is_left_out(folder: Path) -> None:
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        file.create_group("episode_x")
        file["about"] = 3
    assert load(ID).info.episodes == 3


def test_download_is_not_advised_where_it_was_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="delete the data set, and fetch it"):
        load(ID, download=True)


@pytest.mark.parametrize("place", ["episode_0", "episode_1/rewards", "episode_2/observations"])
def test_nobody_waits_for_a_pipe_that_an_episode_is_said_to_be_in(place: str, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with h5py.File(folder / "main_data.hdf5", "r+") as file:
        del file[place]
        file[place] = h5py.ExternalLink("pipe", "/x")
    assert "another file" in refused()
