import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from awr_exp.errors import UserError
from awr_exp.training.logger import Many
from awr_exp.training.loggers import Jsonl, Wandb
from awr_exp.training.redaction import redact
from awr_exp.training.rows import read, series

CONF = Path(__file__).parents[2] / "conf" / "logger"
DEAD_SERVER = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the network nor what the user has set up for W&B takes part."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_BASE_URL", DEAD_SERVER)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("CONFIG", "CACHE", "DATA", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "home" / name))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Jsonl


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """A disk that fills up in the middle of a row."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_rows_are_tidy(tmp_path: Path) -> None:
    jsonl = Jsonl(tmp_path / "new" / "folder")
    jsonl.log(1, {"train/ess": 0.5})
    jsonl.log(2, {"collect/return_mean": 3, "env_steps": 2048})
    lines = (tmp_path / "new" / "folder" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"update": 1, "env_steps": 0, "name": "train/ess", "value": 0.5},
        {"update": 2, "env_steps": 2048, "name": "collect/return_mean", "value": 3.0},
    ]


def test_what_is_not_finite_stays_valid_json(tmp_path: Path) -> None:
    Jsonl(tmp_path).log(1, {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": 1.0})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=refuse)["value"] for line in lines] == [None, None, None, 1.0]


def test_a_resumed_file_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def train(folder: Path, start: int, stop: int) -> None:
        jsonl = Jsonl(folder, update=start)
        for update in range(start + 1, stop + 1):
            jsonl.log(update, {"train/value_loss": 1 / update, "train/ess": 0.1 * update})

    train(tmp_path / "whole", 0, 9)
    train(tmp_path / "killed", 0, 7)
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"update": 8, "env_st')
    train(tmp_path / "killed", 5, 9)

    whole, killed = (tmp_path / name / "metrics.jsonl" for name in ("whole", "killed"))
    assert killed.read_bytes() == whole.read_bytes()
    assert [path.name for path in killed.parent.iterdir()] == ["metrics.jsonl"]


def test_a_last_line_torn_to_a_valid_one_is_dropped(tmp_path: Path) -> None:
    Jsonl(tmp_path).log(1, {"a": 1.0})
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    Jsonl(tmp_path, update=1)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("line", [b'{"update": 3, "na', b"[1]", b"\xff\xfe\x00", b"", b"null", b"[" * 100_000])
def test_reading_skips_what_is_no_row(tmp_path: Path, line: bytes) -> None:
    Jsonl(tmp_path).log(1, {"a": 1.0})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    Jsonl(tmp_path, update=1).log(2, {"a": 2.0})
    assert [row["value"] for row in read(tmp_path)] == [1.0, 2.0]


def test_reading_a_folder_without_metrics(tmp_path: Path) -> None:
    assert read(tmp_path) == []


def test_a_full_disk_costs_one_warning_and_no_later_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jsonl = Jsonl(tmp_path)
    jsonl.log(1, {"a": 1.0})
    with files_no_longer_than(100):
        jsonl.log(2, {"a": 2.0})
        jsonl.log(3, {"a": 3.0})
    jsonl.log(4, {"a": 4.0})
    assert [row["update"] for row in read(tmp_path)] == [1, 4]
    assert len((tmp_path / "metrics.jsonl").read_bytes().splitlines()) == 2
    assert len(warnings(caplog)) == 1


def test_a_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    jsonl = Jsonl(tmp_path / "file")
    jsonl.log(1, {"a": 1.0})
    jsonl.finish({}, {})
    assert len(warnings(caplog)) == 1


# W&B


def runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def inspect(run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Summary and history of an offline run, as W&B's own reader sees them."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    summary, records = (
        subprocess.run([*command, *extra, str(run)], capture_output=True, text=True, check=True, timeout=60)
        for extra in (["--summary"], [])
    )
    parsed = [json.loads(line) for line in records.stdout.splitlines()]
    history = [record["history"]["item"] for record in parsed if record["type"] == "history"]
    return json.loads(summary.stdout), history


def values(history: list[dict[str, Any]], name: str) -> dict[int, Any]:
    return {row["trainer/update"]: row[name] for row in history if name in row}


def test_an_offline_run_can_be_read_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from matplotlib.figure import Figure

    curves, checkpoint = tmp_path / "curves.png", tmp_path / "checkpoint"
    Figure().savefig(curves)
    checkpoint.mkdir()
    (tmp_path / "film.mp4").write_bytes(b"a film")
    (checkpoint / "best.safetensors").write_text("{}")
    caplog.set_level(logging.INFO)

    wandb = Wandb(tmp_path / "run", tags=["a"], name="named", log_model=True, config={"agent": {"beta": 0.3}})
    wandb.log(10, {"train/ess": 0.5, "env_steps": 7})
    # Of those that do not show films, nothing is asked.
    Many([Jsonl(tmp_path / "run"), wandb]).film(20, tmp_path / "film.mp4")
    wandb.log(5000, {"train/ess": float("nan")})
    began = time.monotonic()
    wandb.finish({"best/return": 12.5}, {"curves": curves, "checkpoint": checkpoint}, exit_code=3)
    assert time.monotonic() - began < 20

    (run,) = runs(tmp_path / "run")
    summary, history = inspect(run)
    assert (summary["run_id"], summary["name"], summary["tags"]) == (wandb.id, "named", ["a"])
    assert (summary["project"], summary["exit_code"]) == ("awr_exp", 3)
    assert summary["config"] == {"agent": {"beta": 0.3}}
    assert summary["summary"]["best/return"] == 12.5
    assert values(history, "train/ess") == {10: 0.5, 5000: "NaN"}
    assert any(key.startswith("curves") for row in history for key in row)
    assert list(run.glob("files/media/images/*.png"))
    assert any(row["trainer/update"] == 20 and any(key.startswith("video") for key in row) for row in history)
    assert [path.read_bytes() for path in run.glob("files/media/videos/*.mp4")] == [b"a film"]
    assert f"model-{wandb.id}".encode() in (run / f"run-{wandb.id}.wandb").read_bytes()
    hints = [message for message in caplog.messages if message.startswith("W&B offline, ")]
    assert len(hints) == 2
    assert all(str(run) in hint for hint in hints)
    assert warnings(caplog) == []


def test_a_resumed_run_keeps_its_id(tmp_path: Path) -> None:
    first = Wandb(tmp_path)
    first.log(1, {"a": 1.0})
    first.finish({}, {})
    second = Wandb(tmp_path, run_id=first.id, update=1)
    second.log(2, {"a": 2.0})
    second.finish({}, {})
    parts = [inspect(run) for run in runs(tmp_path)]
    assert [summary["run_id"] for summary, _ in parts] == [first.id, first.id]
    assert [values(history, "a") for _, history in parts] == [{1: 1.0}, {2: 2.0}]


@pytest.mark.slow
def test_runs_of_one_process_do_not_mix(tmp_path: Path) -> None:
    members = [Wandb(tmp_path / str(member), config={"member": member}) for member in range(4)]
    for update in (1, 2):
        for member, wandb in enumerate(members):
            wandb.log(update, {"a": 10.0 * member + update})
    for wandb in members:
        wandb.finish({}, {})
    assert len({wandb.id for wandb in members}) == 4
    for member in (0, 3):
        (run,) = runs(tmp_path / str(member))
        summary, history = inspect(run)
        assert summary["config"] == {"member": member}
        assert values(history, "a") == {1: 10.0 * member + 1, 2: 10.0 * member + 2}


@pytest.mark.parametrize("argument", ["url=https://hf_abcdefghij@host", "+hub.token=visible1", "hf_abcdefghij"])
def test_no_secret_reaches_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "5" * 40)
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    monkeypatch.setattr(sys, "argv", ["main", argument])
    config = {"dataset": {"url": "https://hf_abcdefghij@host", "api_key": "visible1"}, "notes": ["5" * 40]}
    wandb = Wandb(tmp_path / "run", mode="offline", name="on hf_abcdefghij", config=config)
    wandb.log(1, {"a": 1.0})
    wandb.finish({}, {})
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert wandb.id
    assert wandb.id.encode() in written
    for secret in (b"5" * 40, b"hf_abcdefghij", b"visible1"):
        assert secret not in written


def test_redact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "tok-12345678")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    config = {
        "agent": {"beta": 0.3, "hidden": (256, 256)},
        "flag": "true",
        "none_token": None,
        "monkey": "ape",
    }
    secrets = {
        "wandb_api_key": "a",
        "apiKey": "b",
        "Password": 1,
        "client-secret": {"x": 1},
        "u": "x tok-12345678",
    }
    assert redact(config) == {**config, "agent": {"beta": 0.3, "hidden": [256, 256]}}
    assert redact(secrets) == {**dict.fromkeys(list(secrets)[:4], "***"), "u": "x ***"}


def test_an_unknown_mode_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="auto, online, offline, disabled"):
        Wandb(tmp_path, mode="of")


def test_disabled_by_the_environment_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", "5" * 40)
    wandb = Wandb(tmp_path, run_id="abc")
    wandb.log(1, {"a": 1.0})
    wandb.finish({}, {})
    assert (wandb.id, list(tmp_path.iterdir()), warnings(caplog)) == ("abc", [], [])


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    wandb = Wandb(tmp_path)
    wandb.log(1, {"a": 1.0})
    wandb.finish({}, {})
    assert len(warnings(caplog)) == 1


def test_a_folder_that_cannot_be_made_costs_wandb(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    wandb = Wandb(tmp_path / "file", run_id="abc")
    wandb.log(1, {"a": 1.0})
    wandb.finish({}, {})
    assert wandb.id == "abc"
    assert len(warnings(caplog)) == 1


@pytest.mark.slow
def test_a_failing_upload_still_closes_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "curves.png").write_text("no picture")
    wandb = Wandb(tmp_path)
    wandb.log(1, {"a": 1.0})
    wandb.finish({}, {"curves": tmp_path / "curves.png"}, exit_code=1)
    wandb.finish({}, {})
    assert inspect(*runs(tmp_path))[0]["exit_code"] == 1
    assert len(warnings(caplog)) == 1


# W&B reads its settings once in a process and has one service in it: what changes these is tried in another.


def in_process(code: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    preamble = "import logging, os, signal, subprocess, sys\nfrom pathlib import Path\n"
    preamble += "from awr_exp.training.loggers import Wandb\nlogging.basicConfig(level=20)\n"
    command = [sys.executable, "-c", preamble + code, str(folder)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=True)


TRAIN = """
w = Wandb(Path(sys.argv[1]), run_id=os.environ.get("ID"), init_timeout=2)
w.log(1, {"a": 1.0})
w.finish({}, {})
print(w.id)
"""


@pytest.mark.slow
def test_out_of_reach_means_offline(tmp_path: Path) -> None:
    again = "Wandb(Path(sys.argv[1]) / 'next', init_timeout=2).finish({}, {})"
    done = in_process(TRAIN + again, tmp_path, WANDB_API_KEY="5" * 40, ID="abc")
    # The next job of a sweep does not wait for the same server.
    assert done.stderr.count("W&B cannot be used online, this run is logged offline") == 1
    assert "W&B was out of reach a moment ago: this run is logged offline" in done.stderr
    assert len(runs(tmp_path / "next")) == 1
    (run,) = runs(tmp_path)
    assert done.stdout == "abc\n"
    assert f"wandb sync --id abc {run}" in done.stderr
    assert values(inspect(run)[1], "a") == {1: 1.0}


@pytest.mark.parametrize("env", [{"WANDB_API_KEY": "short"}, {"WANDB_MODE": "offline"}])
def test_offline_for_want_of_a_key_or_by_will(tmp_path: Path, env: dict[str, str]) -> None:
    done = in_process(TRAIN, tmp_path, **env)
    assert len(runs(tmp_path)) == 1
    assert done.stderr.count("WARNING") == ("WANDB_API_KEY" in env)


@pytest.mark.slow
def test_the_log_of_its_service_is_not_for_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    done = in_process(TRAIN, tmp_path, HOME="/proc/none")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["INFO", "INFO"], done.stderr
    assert "W&B offline, look" in done.stderr


OWN = {
    "WANDB_PROJECT": "mine", "WANDB_ENTITY": "team", "WANDB_RUN_GROUP": "night", "WANDB_NAME": "name",
    "WANDB_TAGS": "a,b", "WANDB_JOB_TYPE": "probe", "WANDB_NOTES": "note", "WANDB_RUN_ID": "abc",
}  # fmt: skip
SHOW = """
w = Wandb(Path(sys.argv[1]) / "run", **eval(os.environ["GIVEN"]))
s = w._run.settings
print(s.project, s.entity, s.run_group, s.run_name, list(s.run_tags or []), s.run_job_type, s.run_notes, w.id, sep="|")
w.finish({}, {})
"""


@pytest.mark.slow
def test_wandb_s_variables_say_what_the_user_does_not(tmp_path: Path) -> None:
    own = OWN | {"WANDB_DIR": str(tmp_path / "elsewhere"), "WANDB_MODE": "dryrun"}
    (tmp_path / "elsewhere").mkdir()
    yaml = OmegaConf.to_container(OmegaConf.load(CONF / "wandb.yaml")["wandb"])
    given = {name: value for name, value in yaml.items() if not name.startswith("_")}
    done = in_process(SHOW, tmp_path, **own, GIVEN=repr(given))
    assert done.stdout == "mine|team|night|name|['a', 'b']|probe|note|abc\n"
    assert "wandb sync" in done.stderr
    assert len(runs(tmp_path / "elsewhere")) == 1
    assert not (tmp_path / "run" / "wandb").exists()
    typed = given | {"project": "p", "entity": "e", "group": "g", "name": "n", "tags": ["t"], "job_type": "j"}
    done = in_process(SHOW, tmp_path, **own, GIVEN=repr(typed | {"run_id": "from_the_checkpoint"}))
    assert done.stdout == "p|e|g|n|['t']|j|note|from_the_checkpoint\n"


@pytest.mark.parametrize("value", ["true", "1"])
def test_disabled_by_its_older_variable(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DISABLED", value)
    Wandb(tmp_path).finish({}, {})
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(("mode", "env"), [("online", {}), ("auto", {"WANDB_MODE": "online"})])
def test_nothing_waits_for_a_key_at_a_prompt(mode: str, env: dict[str, str], tmp_path: Path) -> None:
    code = f"from awr_exp.training.loggers import Wandb\nWandb({str(tmp_path)!r}, mode={mode!r}).finish({{}}, {{}})"
    master, slave = os.openpty()
    terminal: dict[str, Any] = {"stdin": slave, "stdout": slave, "stderr": slave}
    subprocess.run([sys.executable, "-c", code], env=os.environ | env, timeout=60, check=True, **terminal)
    assert "no W&B key is configured: this run is logged offline" in os.read(master, 10_000).decode()
    assert len(runs(tmp_path)) == 1


def test_a_dead_service_costs_one_warning(tmp_path: Path) -> None:
    code = f"""
w = Wandb(Path(sys.argv[1]))
children = subprocess.check_output(["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], text=True)
for pid, name in map(str.split, children.splitlines()):
    if name.startswith("wandb"):
        os.kill(int(pid), {signal.SIGKILL.value})
for update in range(3):
    w.log(update, {{"a": 1.0}})
w.finish({{}}, {{}})
print("trained")
"""
    done = in_process(code, tmp_path)
    assert done.stdout == "trained\n"
    assert done.stderr.count("W&B is off") == 1


# Together


@pytest.mark.slow
def test_the_configs_build_both(tmp_path: Path) -> None:
    group = OmegaConf.merge(*(OmegaConf.load(CONF / f"{name}.yaml") for name in ("jsonl", "wandb")))
    given = {"folder": tmp_path, "update": 0, "config": {"agent": {"_target_": "os.getcwd"}}, "run_id": None}
    many = Many([instantiate(node)(**given) for node in group.values()])
    many.log(3, {"a": 1.0})
    many.finish({"b": 2}, {})
    assert read(tmp_path) == [{"update": 3, "env_steps": 0, "name": "a", "value": 1.0}]
    (run,) = runs(tmp_path)
    summary, _ = inspect(run)
    assert summary["run_id"] == many.id
    assert summary["config"] == given["config"]


def test_without_wandb_there_is_no_id(tmp_path: Path) -> None:
    assert Many([Jsonl(tmp_path)]).id is None


def test_a_series_is_counted_in_environment_steps_where_there_are_any(tmp_path: Path) -> None:
    """An online run may evaluate twice at one update."""
    offline, online = Jsonl(tmp_path / "offline"), Jsonl(tmp_path / "online")
    for update, env_steps, value in ((0, 0, 1.0), (5, 100, 2.0), (5, 200, 3.0)):
        online.log(update, {"eval/return_mean": value, "env_steps": env_steps})
    offline.log(5, {"eval/return_mean": 2.0, "train/ess": float("nan")})
    assert series(tmp_path / "online") == ({"eval/return_mean": {0: 1.0, 100: 2.0, 200: 3.0}}, "environment steps")
    assert series(tmp_path / "offline") == ({"eval/return_mean": {5: 2.0}}, "updates")
    assert series(tmp_path / "absent") == ({}, "updates")
