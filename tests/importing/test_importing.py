"""`awr-exp import`: the same steps by every road are the same data, and a mistake is one line that says where."""

import csv
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from awr_exp.data.description import describe
from awr_exp.data.minari import load
from awr_exp.data.transitions import Transitions
from awr_exp.importing import csv_file
from awr_exp.importing.__main__ import main
from awr_exp.importing.draft import Draft
from tests.conftest import Cli

Episode = dict[str, Any]
ID = "test/own-v0"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "minari"


def episodes(count: int = 4, choices: bool = False) -> list[Episode]:
    """Episodes of 5 steps and more, every other one of which terminates."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        steps = 5 + number
        action = rng.integers(0, 3, (steps, 1)) if choices else rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
        obs, reward = rng.normal(size=(steps + 1, 3)).astype(np.float32), rng.normal(size=steps).astype(np.float32)
        made.append({"obs": obs, "action": action, "reward": reward, "terminated": number % 2 == 1})
    return made


def flags(one: Episode, name: str) -> Any:
    ends = np.arange(1, len(one["reward"]) + 1) == len(one["reward"])
    return ends & (one["terminated"] if name == "terminated" else not one["terminated"])


def flat(made: Sequence[Episode], of: Callable[[Episode], Any]) -> Any:
    return np.concatenate([of(one) for one in made])


def columns(made: Sequence[Episode]) -> dict[str, Any]:
    """Transitions with next observations, flat."""
    return {
        "observations": flat(made, lambda one: one["obs"][:-1]),
        "next_observations": flat(made, lambda one: one["obs"][1:]),
        "actions": flat(made, lambda one: one["action"]),
        "rewards": flat(made, lambda one: one["reward"]),
        "terminals": flat(made, lambda one: flags(one, "terminated")),
        "timeouts": flat(made, lambda one: flags(one, "truncated")),
    }


def as_npz(made: Sequence[Episode]) -> list[str]:
    for number, one in enumerate(made):
        arrays = {"observations": one["obs"], "actions": one["action"], "rewards": one["reward"]}
        np.savez(f"log_{number + 8}.npz", **arrays, terminations=flags(one, "terminated"))
    return [f"log_{number + 8}.npz" for number in range(len(made))]


def as_folder(made: Sequence[Episode]) -> list[str]:
    """In the order of their numbers, which is not the alphabet's."""
    Path("logs").mkdir()
    for name in as_npz(made):
        shutil.move(name, "logs")
    return ["logs"]


def as_rlds(made: Sequence[Episode]) -> list[str]:
    for number, one in enumerate(made):
        last = np.arange(len(one["obs"])) == len(one["reward"])
        filled = {name: np.concatenate([one[name], np.zeros_like(one[name][:1])]) for name in ("action", "reward")}
        state = {"observation/state": one["obs"], "observation/image": np.zeros((len(last), 2, 2, 3), np.uint8)}
        np.savez(f"{number}.npz", **state, **filled, is_last=last, is_terminal=last & one["terminated"])
    return [f"{number}.npz" for number in range(len(made))]


def as_d4rl(made: Sequence[Episode]) -> list[str]:
    with h5py.File("d4rl.hdf5", "w") as file:
        for name, column in columns(made).items():
            file[name] = column
        file["infos/qpos"], file["metadata/algorithm"] = np.zeros((len(column), 2)), np.bytes_("sac")
    return ["d4rl.hdf5"]


def as_robomimic(made: Sequence[Episode]) -> list[str]:
    with h5py.File("demos.hdf5", "w") as file:
        for number, one in enumerate(made):
            demo = file.create_group(f"data/demo_{number + 8}")
            demo["actions"], demo["rewards"], demo["dones"] = one["action"], one["reward"], flags(one, "terminated")
            demo["states"] = np.zeros((len(one["reward"]), 5))
            for name, obs in (("obs", one["obs"][:-1]), ("next_obs", one["obs"][1:])):
                demo[f"{name}/arm"], demo[f"{name}/object"] = obs[:, :2], obs[:, 2:]
                demo[f"{name}/image"] = np.zeros((len(obs), 2, 2, 3), np.uint8)
        file["mask/train"] = [b"demo_8"]
    return ["demos.hdf5"]


def as_csv(made: Sequence[Episode], name: str = "log.csv", delimiter: str = ",") -> list[str]:
    """With a row of each final observation, whose other cells are empty."""
    actions = made[0]["action"].shape[1]
    with open(name, "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["ep", "q_0", "q_1", "v", *(f"a_{entry}" for entry in range(actions)), "r", "done", "note"])
        for number, one in enumerate(made):
            steps = zip(one["obs"], one["action"], one["reward"], flags(one, "terminated"), strict=False)
            for obs, action, reward, done in steps:
                writer.writerow([f"run {number}", *map(float, obs), *action.tolist(), float(reward), done, "fine, so"])
            writer.writerow([f"run {number}", *map(float, one["obs"][-1]), *[""] * (actions + 2), "last"])
    return [name, "observation=q_*,v"]


def as_parquet(made: Sequence[Episode]) -> list[str]:
    """With lists, and row groups that no episode heeds."""
    found = columns(made)
    table = pyarrow.table({name: one.tolist() if one.ndim > 1 else one for name, one in found.items()})
    parquet.write_table(table, "log.parquet", row_group_size=7)
    return ["log.parquet"]


ROADS = [as_npz, as_folder, as_rlds, as_d4rl, as_robomimic, as_csv, as_parquet]


def same(data: Transitions, made: Sequence[Episode]) -> None:
    """Whether a data set holds these episodes, to the last bit."""
    assert data.lengths.tolist() == [len(one["reward"]) for one in made]
    batch = data.sample(data.rows.new_tensor(range(len(data)))[None])
    np.testing.assert_array_equal(data.observations(), flat(made, lambda one: one["obs"]))
    np.testing.assert_array_equal(batch.action[0].reshape(len(data), -1), flat(made, lambda one: one["action"]))
    np.testing.assert_array_equal(batch.reward[0], flat(made, lambda one: one["reward"]))
    np.testing.assert_array_equal(batch.terminated[0], flat(made, lambda one: flags(one, "terminated")))


@pytest.mark.parametrize("road", ROADS, ids=lambda road: road.__name__)
def test_the_same_steps_by_every_road_are_the_same_data(
    road: Callable[..., list[str]], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = episodes()
    main([*road(made), f"id={ID}"])
    assert "ends: 2 of 4 episodes terminated, 2 were cut" in capsys.readouterr().out
    same(load(ID), made)
    assert [path.name for path in (root / "test").iterdir()] == ["own-v0"]


def test_a_folder_of_lerobot_gives_up_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    made, place = episodes(), Path("lerobot")
    (place / "meta").mkdir(parents=True)
    (place / "data" / "chunk-000").mkdir(parents=True)
    (place / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v2.1", "total_frames": 26}))
    for number, one in enumerate(made):
        steps = len(one["reward"])
        content = {
            "observation.state": pyarrow.FixedSizeListArray.from_arrays(one["obs"][:-1].ravel(), 3),
            "action": one["action"].tolist(),
            "episode_index": [number] * steps,
            "frame_index": range(steps),
            "next.reward": one["reward"],
            "next.done": flags(one, "terminated"),
        }
        parquet.write_table(pyarrow.table(content), place / "data" / "chunk-000" / f"episode_{number:06d}.parquet")
    main(["lerobot", f"id={ID}"])
    said = capsys.readouterr().out
    assert "next.done counts as terminated" in said
    assert "2 episodes ended by a cut, with no observation after it" in said
    data = load(ID)
    # A cut one ends where the last step that led somewhere known did.
    assert data.lengths.tolist() == [4, 6, 6, 8]
    assert data.terminated[data.last].tolist() == [False, True, False, True]
    np.testing.assert_array_equal(data.packed[:5, :3], made[0]["obs"][:5])
    (place / "data" / "chunk-000" / "episode_000003.parquet").unlink()
    assert "lerobot has 18 steps, and 26 by its meta/info.json" in refused("lerobot", "id=test/other-v0")


def refused(*words: str) -> str:
    """The one line with which an import ends."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    message = str(stop.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


HEADER = "ep,obs_0,obs_1,a_0,reward,done"
ROWS = [f"{row // 5},{row / 10},{row},{row % 3 / 3},1,{int(row % 5 == 4)}" for row in range(20)]
WRONG = {
    "1,2,3": ", row 8 has 3 columns, and the header names 6",
    "1,,7,0,1,0": ", column obs_0, row 8 is empty, or no number",
    "1,0.7,nan,0,1,0": ", column obs_1, row 8 is empty, or no number",
    "1,0.7,1e300,0,1,0": ", column obs_1, row 8 holds 1e+300, which is too large",
    "1,0.7,7,left,1,0": ", column a_0, row 8 holds 'left', which is no number: write numbers as 0.98",
    "1,0.7,7,0,1,2": ", column done, row 8 holds 2; a flag is 0 or 1",
    "1,0.7,7,,,0": ", column a_0, row 8 is empty within an episode",
    "0,0.7,7,0,1,0": ", column ep, row 8 goes on with an episode that others came after: sort the rows",
}


@pytest.mark.parametrize("row", WRONG)
@pytest.mark.parametrize("block", [64, csv_file.BLOCK])
def test_what_is_wrong_in_a_row_is_named(row: str, block: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a block of lines ends."""
    monkeypatch.setattr(csv_file, "BLOCK", block)
    Path("log.csv").write_text("\n".join([HEADER, *ROWS[:7], row, *ROWS[8:]]))
    assert f"log.csv{WRONG[row]}" in refused("log.csv", f"id={ID}")
    assert not list((root / "test").iterdir())


MISTAKES = {
    ("log.csv",): "id is missing: give id=..., such as id=mine/robot-v0",
    ("id=test/own-v0",): "no file is named",
    ("log.csv", f"id={ID}", "acton=a_0"): "there is no setting acton; did you mean action?",
    ("log.csv", f"id={ID}", "action=b_*"): "log.csv has no column b_* for action; its columns are ep, obs_0,",
    ("log.csv", f"id={ID}", "observation=obs_*,reward"): "column reward is both observation and reward",
    ("log.csv", f"id={ID}", "done=none", "terminated=none"): "there is no setting done",
    ("log.csv", f"id={ID}", "terminated=none", "episode=none"): "log.csv: nothing says where episodes end: give",
    ("log.csv", f"id={ID}", "action_high=0.5"): "column a_0, row 3 holds 0.666667; it is outside the bounds 0 to 0.5",
    ("log.csv", f"id={ID}", "action_low=a"): "action_low is a; it must be a number",
    ("log.csv", f"id={ID}", "env=pendulm"): "there is no env=pendulm; did you mean pendulum?",
    ("log.csv", f"id={ID}", "env=pendulum"): "the data have 2 observation entries, the environment 3",
    ("log.csv", "id=own"): "id 'own' is not a Minari id",
    ("lag.csv", f"id={ID}"): "lag.csv is not there; did you mean log.csv?",
    ("log.txt", f"id={ID}"): "log.txt is of no format that is read: name files of .csv",
    ("log.csv", "log.csv", f"id={ID}"): "log.csv is named twice",
    ("log.csv", "more.csv", f"id={ID}"): "more.csv has no column known as reward",
    ("log.csv", "long.csv", f"id={ID}"): "observation is obs_0, obs_1, obs_2 in long.csv and obs_0, obs_1 in log.csv",
    ("bare.csv", f"id={ID}"): "bare.csv has no header: its first line must name the columns",
    ("void.csv", f"id={ID}"): "void.csv is empty",
    ("old.csv", f"id={ID}"): "old.csv has lines that end in a carriage return alone",
    ("l*.npz", f"id={ID}"): "no file matches l*.npz",
    ("log.csv", f"id={ID}", "ref_min_score=1"): "ref_min_score is 1.0 and ref_max_score None: give both",
    ("log.csv", f"id={ID}", "action_low=3"): "the least action would be 3, the largest 0.67: correct action_low",
    ("log.csv", "header.csv", f"id={ID}"): "header.csv has no rows: leave it out",
    ("empty.npz", f"id={ID}", "episode=file"): "empty.npz has no rows",
    (".", f"id={ID}"): "holds files of .csv and .npz: name those to import",
    ("objects.npz", f"id={ID}", "episode=file"): "observations holds Python objects, not numbers",
    ("uneven.npz", f"id={ID}", "episode=file"): "actions has 5 rows, observations has 7",
    ("half.npz", f"id={ID}"): "half.npz is damaged, or ends in the middle",
}


@pytest.mark.parametrize("words", MISTAKES, ids=lambda words: " ".join(words))
def test_a_mistake_is_answered_with_one_line(words: tuple[str, ...], root: Path) -> None:
    for name, lines in {
        "log.csv": [HEADER, *ROWS],
        "bare.csv": ROWS,
        "void.csv": [],
        "log.txt": [],
        "header.csv": [HEADER],
    }.items():
        Path(name).write_text("\n".join(lines))
    Path("old.csv").write_text("\r".join([HEADER, *ROWS]), newline="")
    np.savez("empty.npz", observations=np.zeros((0, 2)), actions=np.zeros(0), rewards=np.zeros(0))
    Path("more.csv").write_text("\n".join([HEADER.replace("reward", "gain"), *ROWS]))
    Path("long.csv").write_text("\n".join([f"{HEADER},obs_2", *(f"{row},0" for row in ROWS)]))
    zeros = {"actions": np.zeros(5), "rewards": np.zeros(5)}
    np.savez("objects.npz", observations=np.array([{}] * 5, object), **zeros)
    np.savez("uneven.npz", observations=np.zeros((7, 2)), **zeros)
    Path("half.npz").write_bytes(Path("uneven.npz").read_bytes()[:-100])
    assert MISTAKES[words] in refused(*words)
    assert not (root / ID).exists()


@pytest.mark.parametrize("name", ["log.parquet", "d4rl.hdf5"])
def test_a_file_that_ends_in_the_middle_is_damaged(name: str) -> None:
    as_parquet(episodes())
    as_d4rl(episodes())
    Path(name).write_bytes(Path(name).read_bytes()[:-200])
    assert f"{name} is damaged, or ends in the middle" in refused(name, f"id={ID}")


def test_lists_of_several_lengths_are_refused() -> None:
    table = {"obs": [[1.0, 2.0]] * 3 + [[1.0]], "action": [0, 1, 0, 1], "reward": [1.0] * 4, "done": [0, 0, 0, 1]}
    parquet.write_table(pyarrow.table(table), "log.parquet")
    assert "log.parquet, column obs, row 4 has 1 numbers, and rows before it have 2" in refused(
        "log.parquet", f"id={ID}"
    )


def test_an_import_that_was_stopped_goes_on(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the second of two files, however much of a row was written when it was killed."""
    made = episodes(6)
    words = [as_csv(made[:3], "one.csv")[0], *as_csv(made[3:], "two.csv"), f"id={ID}"]
    monkeypatch.setattr(csv_file, "BLOCK", 200)
    add, read = Draft.add, []

    def stopped(self: Draft, found: Any, path: Path, position: int) -> None:
        if path.name == "two.csv" and len(read) > 12:
            (self.folder / "observations.bin").open("ab").write(b"torn")
            raise KeyboardInterrupt
        read.append(len(found["rewards"]))
        add(self, found, path, position)

    monkeypatch.setattr(Draft, "add", stopped)
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 130
    assert "stopped: the same command goes on" in capsys.readouterr().err
    before = sum(read)
    again: list[int] = []

    def counted(self: Draft, found: Any, path: Path, position: int) -> None:
        again.append(len(found["rewards"]))
        add(self, found, path, position)

    monkeypatch.setattr(Draft, "add", counted)
    main(words)
    assert before > 0
    assert before + sum(again) == sum(len(one["obs"]) for one in made)
    same(load(ID), made)
    assert [path.name for path in (root / "test").iterdir()] == ["own-v0"]


def test_a_stopped_import_of_other_files_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    made = episodes()
    words = [*as_csv(made), f"id={ID}"]
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "next_file", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(SystemExit):
            main(words)
    made[0]["reward"][0] = 7
    as_csv(made)
    main(words)
    same(load(ID), made)


def test_a_disk_that_fills_leaves_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*as_csv(episodes()), f"id={ID}"]
    for checks in (0, 3):
        left = iter([2**40] * checks + [2**20] * 9)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda place, left=left: SimpleNamespace(free=next(left)))
            assert "cannot be written (less than 32 MB would be left of its disk)" in refused(*words)
        assert not list((root / "test").iterdir())


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_choices_are_counted_and_delimiters_told(delimiter: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = episodes(choices=True)
    main([*as_csv(made, "log.tsv", delimiter), f"id={ID}"])
    said = capsys.readouterr().out
    assert "actions: a choice of 3, from 0 on" in said
    assert "not used: note" in said
    same(load(ID), made)
    # Whole numbers that are amounts have bounds.
    main([*as_csv(made, "log.tsv", delimiter), "id=test/amounts-v0", "action_low=-1", "action_high=2"])
    spec = load("test/amounts-v0").spec
    assert (spec.action_low, spec.action_high) == ((-1,), (2,))


def packed() -> str:
    Path("log.csv.gz").write_bytes(gzip.compress(Path("log.csv").read_bytes()))
    return "log.csv.gz"


def rewritten(change: Callable[[str], str], encoding: str = "utf-8") -> str:
    Path("log.csv").write_bytes(change(Path("log.csv").read_text()).encode(encoding))
    return "log.csv"


@pytest.mark.parametrize(
    ("delimiter", "write"),
    [
        (",", packed),
        ("|", lambda: "l*.csv"),
        (";", lambda: rewritten(lambda text: text.replace(".", ","))),
        (",", lambda: rewritten(lambda text: text.replace("True", "yes").replace("False", "no"))),
        (",", lambda: rewritten(str, "utf-8-sig")),
        (",", lambda: rewritten(lambda text: text.replace("run", "Läuft"), "latin-1")),
        (
            ",",
            lambda: rewritten(lambda text: text.replace("ep,", "Episode,").replace("done", "Done").replace("run ", "")),
        ),
        (",", lambda: rewritten(lambda text: text.replace("run 0", "0").replace("run 1", "1"))),
    ],
    ids=["gz", "glob", "decimal comma", "yes", "bom", "latin-1", "capitals", "some names are numbers"],
)
def test_a_table_is_the_same_as_other_programs_write_it(
    delimiter: str, write: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "BLOCK", 150)
    made = episodes()
    as_csv(made, delimiter=delimiter)
    main([write(), "observation=q_*,v", f"id={ID}"])
    same(load(ID), made)


def test_episodes_are_told_apart_by_what_floats_cannot_tell() -> None:
    count = np.arange(12)
    table = {"obs": count, "action": count % 2, "reward": count, "ep": count // 4 + 2**60}
    parquet.write_table(pyarrow.table(table), "log.parquet")
    main(["log.parquet", f"id={ID}"])
    assert load(ID).lengths.tolist() == [3, 3, 3]
    parquet.write_table(pyarrow.table(table | {"ep": table["ep"].astype(float)}), "log.parquet")
    assert "column ep, row 1 holds a number of too many digits" in refused("log.parquet", "id=test/floats-v0")
    halves = table | {"ep": (count // 4 / 2).astype(np.float32)}
    parquet.write_table(pyarrow.table(halves), "log.parquet")
    main(["log.parquet", "id=test/halves-v0"])
    assert load("test/halves-v0").lengths.tolist() == [3, 3, 3]
    named = table | {"ep": [None if row == 5 else f"run {row // 4}" for row in range(12)]}
    parquet.write_table(pyarrow.table(named), "log.parquet")
    assert "column ep, row 6 is empty: name the episode" in refused("log.parquet", "id=test/floats-v0")


def test_times_of_day_begin_episodes_and_texts_of_numbers_are_numbers(root: Path) -> None:
    rows = [f"12:{row % 3:02d}:00,{row},{row % 3},{row}" for row in range(9)]
    Path("log.csv").write_text("\n".join(["time,obs,a_0,reward", *rows]))
    main(["log.csv", f"id={ID}", "step=time"])
    assert load(ID).lengths.tolist() == [2, 2, 2]
    texts = {"obs": np.arange(9.0), "action": (np.arange(9) % 3).astype(str), "reward": np.ones(9)}
    np.savez("log.npz", **texts, timeout=np.arange(9) == 8)
    main(["log.npz", "id=test/texts-v0"])
    assert load("test/texts-v0").spec.num_actions == 3


def test_what_columns_are_called_is_kept(root: Path) -> None:
    main([*as_csv(episodes()), f"id={ID}"])
    found = describe(load(ID))
    assert [one.name for one in found.observations] == ["q_0", "q_1", "v"]
    assert [one.name for one in found.actions] == ["a_0", "a_1"]
    metadata = root / ID / "data" / "metadata.json"
    metadata.write_text(metadata.read_text().replace('"q_0"', "0"))
    assert [one.name for one in describe(load(ID)).observations] == ["0", "1", "2"]


def test_demonstrations_may_have_no_rewards() -> None:
    made = [one | {"reward": np.zeros_like(one["reward"])} for one in episodes()]
    main([*as_csv(episodes()), f"id={ID}", "reward=0"])
    same(load(ID), made)


def test_rows_after_the_end_of_a_demonstration_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """As where a success is marked from then on."""
    with h5py.File("demos.hdf5", "w") as file:
        for number in range(2):
            demo = file.create_group(f"data/demo_{number}")
            demo["obs/x"], demo["actions"] = np.arange(10.0), np.arange(10.0) / 10
            demo["rewards"] = demo["dones"] = np.arange(10) >= 6 - number
    main(["demos.hdf5", f"id={ID}"])
    assert "7 rows came after the end of their episode: left out" in capsys.readouterr().out
    data = load(ID)
    assert data.lengths.tolist() == [7, 6]
    assert data.terminated[data.last].all()


def swing() -> None:
    """A table of Pendulum."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-3, 3, 60)
    columns = {"obs_0": np.cos(angle), "obs_1": np.sin(angle), "obs_2": rng.normal(size=60)}
    columns |= {"a_0": rng.uniform(-1, 1, 60), "reward": -(angle**2), "timeout": np.arange(60) % 20 == 19}
    np.savetxt("log.csv", np.stack([*columns.values()], 1), delimiter=",", header=",".join(columns), comments="")


def test_an_environment_says_spaces_and_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    swing()
    main(["log.csv", f"id={ID}", "env=pendulum", "ref_min_score=-1200", "ref_max_score=-150"])
    assert f"-m awr_exp.main dataset=minari dataset.id={ID}\n" in capsys.readouterr().out
    data = load(ID)
    assert data.info.env_spec.id == "Pendulum-v1"
    assert data.spec.action_low == (-2,)
    assert (data.info.ref_min_score, data.info.ref_max_score) == (-1200, -150)
    assert data.lengths.tolist() == [19] * 3
    assert f"data set '{ID}' is in" in refused("log.csv", f"id={ID}")


def test_a_command_that_is_wrong_fails() -> None:
    command = [sys.executable, "-m", "awr_exp.main", "import", "log.csv", f"id={ID}"]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (1, "error: log.csv is not there\n")


@pytest.mark.slow
def test_a_policy_is_trained_on_a_table_alone(cli: Cli, datasets: Path, tmp_path: Path) -> None:
    swing()
    assert cli("import", "log.csv", "id=test/table-v0").returncode == 0
    small = ["network.hidden=[16]", "logger=jsonl", "trainer.updates=4", "env=none"]
    done = cli("dataset=minari", "dataset.id=test/table-v0", *small)
    assert done.returncode == 0, done.stdout
