"""W&B online, against a server that stands in for it: what is sent is right, and a policy comes back from there."""

import json
import time
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from awr_exp.training import artifacts, wandb_settings
from awr_exp.training.loggers import Wandb
from tests import wandb_server
from tests.conftest import refused
from tests.training.test_loggers import in_process, no_network

__all__ = ["no_network"]
KEY = "5" * 40
TRAIN = """
folder = Path(sys.argv[1])
config = {"agent": {"beta": 0.3}, "hub": {"api_key": "visible1"}}
w = Wandb(folder / "log", project="p", group="night", name="probe", tags=["t"], log_model=True, config=config)
for update in range(1, 51):
    w.log(update, {"train/ess": update / 64, "env_steps": 0})
w.log(50, {"diagnosis/lead": 0.5})
w.finish({"eval/return_mean": -150.0}, {"checkpoint": folder / "checkpoint"}, exit_code=3)
"""
LOAD = """
import awr_exp
policy = awr_exp.load(os.environ["ARTIFACT"])
print(policy([0.0, 0.0, 0.0]).shape, policy.spec.obs_dim)
"""


@pytest.mark.slow
def test_what_a_run_sends_and_how_its_policy_comes_back(finished: Path, tmp_path: Path) -> None:
    with wandb_server.running() as server:
        env = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = in_process(TRAIN, finished, **env)
        assert "WARNING" not in done.stderr
        assert server.unknown == []
        begun = server.given("UpsertBucket")[0]
        about = ("project", "groupName", "displayName", "tags", "jobType")
        assert [begun[name] for name in about] == ["p", "night", "probe", ["t"], "train"]
        config = {name: one["value"] for name, one in json.loads(begun["config"]).items() if name != "_wandb"}
        assert config == {"agent": {"beta": 0.3}, "hub": {"api_key": "***"}}

        rows = [row for row in server.lines("wandb-history.jsonl") if "train/ess" in row]
        assert [(row["trainer/update"], row["train/ess"]) for row in rows] == [(n, n / 64) for n in range(1, 51)]
        assert not any({"env_steps", "diagnosis/lead"} & row.keys() for row in rows)
        summary = json.loads(server.files["/run/wandb-summary.json"])
        assert (summary["eval/return_mean"], summary["diagnosis/lead"]) == (-150.0, 0.5)
        assert (server.streams[-1]["complete"], server.streams[-1]["exitcode"]) == (True, 3)

        best = (finished / "checkpoint" / "best.safetensors").read_bytes()
        assert server.files["/artifact/policy.safetensors"] == best
        assert json.loads(server.files["/artifact/manifest"])["contents"].keys() == {artifacts.MODEL}
        made = server.given("CreateArtifact")[0]["input"]
        assert (made["artifactTypeName"], made["artifactCollectionName"]) == ("model", f"model-{begun['name']}")
        sent = json.dumps([server.queries, server.streams]).encode() + b"".join(server.files.values())
        assert KEY.encode() not in sent
        assert b"visible1" not in sent

        loaded = in_process(LOAD, tmp_path, **env, ARTIFACT=f"wandb:me/p/model-{begun['name']}:v0")
        assert loaded.stdout == "(1,) 3\n"
        assert server.given("ArtifactMembershipByName")[0]["name"] == f"model-{begun['name']}:v0"


def test_nobody_waits_for_a_server_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with wandb_server.running() as server:
        assert wandb_settings.answers(server.url)
    assert not wandb_settings.answers(server.url)
    logger, closed = Wandb(tmp_path), Event()
    logger.url, logger._run = "a page", MagicMock(finish=lambda exit_code: closed.wait(60))
    logger._run.settings = SimpleNamespace(base_url=server.url, sync_dir=str(tmp_path / "run-1"))
    sent = logger._run.log_artifact
    began = time.monotonic()
    logger.finish({"eval/return_mean": 1.0}, {"checkpoint": tmp_path})
    closed.set()
    assert time.monotonic() - began < 10
    assert not sent.called
    (told,) = caplog.messages
    assert told.startswith("W&B is out of reach, and has not all of this run. Once it is back: ")
    assert told.endswith(f"sync {tmp_path / 'run-1'}")


@pytest.mark.parametrize("name", ["wandb:", "wandb:a/b/c/d:v0", "wandb:a:b:c"])
def test_what_is_no_name_of_an_artifact(name: str) -> None:
    assert "write wandb:entity/project/artifact:v3" in (refused(artifacts.local, name) or "")


def test_without_a_key_it_is_said_and_other_paths_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "has_key", lambda: False)
    assert "run `wandb login` first" in (refused(artifacts.local, "wandb:me/p/model-x:v0") or "")
    assert artifacts.local("outputs/runs/x") == Path("outputs/runs/x")


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (["policy.safetensors", "config.yaml"], "policy.safetensors"),
        (["best.safetensors", "update_1.safetensors"], "best.safetensors"),
        (["own.safetensors"], "own.safetensors"),
        (["a.safetensors", "b.safetensors"], "holds 2 checkpoints"),
        (["../best.safetensors", "/etc/best.safetensors", "model.pt"], "holds no checkpoint"),
    ],
)
def test_which_file_of_an_artifact_is_the_checkpoint(entries: list[str], found: str) -> None:
    said = refused(artifacts._model, "wandb:x", entries)
    assert found in said if said else artifacts._model("wandb:x", entries) == found
