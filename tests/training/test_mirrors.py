"""Tables, TensorBoard and MLflow beside metrics.jsonl, read back by their own readers."""

import csv
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from awr_exp import arguments
from awr_exp.config import check_trusted
from awr_exp.errors import UserError
from awr_exp.training.logger import Logger, Many
from awr_exp.training.loggers import Jsonl
from awr_exp.training.mirrors import Csv, TensorBoard
from awr_exp.training.mlflow_mirror import Mlflow
from tests.training.test_loggers import files_no_longer_than, warnings

Values = dict[int, float]
METRICS = ("train/ess", "eval/return_mean")
SECRET = {"agent": {"beta": 0.3, "head": None}, "hub": {"api_key": "visible1"}}


def of_csv(folder: Path) -> dict[str, Values]:
    with (folder / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    at = "env_steps" if any(int(row["env_steps"]) for row in found) else "update"
    # A place has one row.
    assert len({(row["update"], row["env_steps"]) for row in found}) == len(found)
    return {name: {int(row[at]): float(row[name]) for row in found if row[name]} for name in METRICS}


def of_tensorboard(folder: Path) -> dict[str, Values]:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    scalars = {name: events.Scalars(name) for name in METRICS}
    assert all(len({one.step for one in found}) == len(found) for found in scalars.values())
    return {name: {one.step: one.value for one in found} for name, found in scalars.items()}


def of_mlflow(folder: Path) -> dict[str, Values]:
    mlflow = pytest.importorskip("mlflow")
    client, id = mlflow.MlflowClient(Path("mlruns").absolute().as_uri()), (folder / "mlflow.run").read_text()
    histories = {name: client.get_metric_history(id, name) for name in METRICS}
    assert all(len({one.step for one in found}) == len(found) for found in histories.values())
    return {name: {one.step: one.value for one in found} for name, found in histories.items()}


MIRRORS = [
    pytest.param(Csv, of_csv, id="csv"),
    pytest.param(TensorBoard, of_tensorboard, id="tensorboard"),
    pytest.param(Mlflow, of_mlflow, id="mlflow"),
]
Reader = Callable[[Path], dict[str, Values]]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)


def begun(kind: Any, folder: Path, update: int = -1, env_steps: int = 0) -> Many:
    """As a run begins, or goes on from a checkpoint at an update and an environment step."""
    given = {"folder": folder, "config": SECRET, "update": max(0, update), "run_id": None}
    return Many([Jsonl(folder, update=update, env_steps=env_steps), *([kind(**given)] if kind else [])])


def train(logger: Logger, start: int, stop: int, per_update: int = 0) -> None:
    """Report at each update, and evaluate at every second one; per_update: environment steps."""
    for update in range(start + 1, stop + 1):
        place = {"env_steps": update * per_update}
        logger.log(update, {"train/ess": update / 8} | place)
        if update % 2 == 0:
            logger.log(update, {"eval/return_mean": float(-update)} | place)


def assert_whole(found: dict[str, Values], stop: int, unit: int = 1) -> None:
    assert found["train/ess"] == {unit * n: n / 8 for n in range(1, stop + 1)}
    assert found["eval/return_mean"] == {unit * n: -n for n in range(2, stop + 1, 2)}


@pytest.mark.parametrize(("kind", "read"), MIRRORS)
def test_a_run_that_was_killed_has_each_row_once(kind: Any, read: Reader, tmp_path: Path) -> None:
    train(begun(kind, tmp_path / "run"), 0, 7)
    # Nobody has closed anything, and the newest checkpoint is that of update 5.
    assert_whole(read(tmp_path / "run"), 7)
    logger = begun(kind, tmp_path / "run", update=5)
    train(logger, 5, 10)
    logger.finish({}, {})
    assert_whole(read(tmp_path / "run"), 10)


@pytest.mark.parametrize(("kind", "read"), MIRRORS)
def test_a_run_that_gets_a_logger_later_has_all_its_rows_there(kind: Any, read: Reader, tmp_path: Path) -> None:
    train(begun(None, tmp_path / "run"), 0, 4, per_update=100)
    logger = begun(kind, tmp_path / "run", update=4, env_steps=400)
    train(logger, 4, 6, per_update=100)
    assert_whole(read(tmp_path / "run"), 6, unit=100)


@pytest.mark.parametrize(("kind", "read"), MIRRORS)
def test_what_is_no_number_is_none(kind: Any, read: Reader, tmp_path: Path) -> None:
    logger = begun(kind, tmp_path / "run")
    logger.log(1, {"train/ess": math.nan, "eval/return_mean": 1.0})
    assert math.isnan(read(tmp_path / "run")["train/ess"][1])
    begun(kind, tmp_path / "run", update=1)
    assert math.isnan(read(tmp_path / "run")["train/ess"][1])


@pytest.mark.parametrize(("kind", "read"), MIRRORS)
def test_members_do_not_mix(kind: Any, read: Reader, tmp_path: Path) -> None:
    loggers = [begun(kind, tmp_path / str(member)) for member in range(2)]
    for update in (2, 4):
        for member, logger in enumerate(loggers):
            logger.log(update, dict.fromkeys(METRICS, 10.0 * member + update))
    for member, logger in enumerate(loggers):
        logger.finish({}, {})
        assert read(tmp_path / str(member))["train/ess"] == {2: 10.0 * member + 2, 4: 10.0 * member + 4}


@pytest.mark.parametrize("kind", [Csv, TensorBoard, Mlflow])
def test_no_secret_is_written(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    logger = kind(folder=tmp_path / "run", config=SECRET | {"url": "https://hf_abcdefghij@host"})
    logger.finish({}, {})
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"visible1" not in written
    assert b"hf_abcdefghij" not in written
    if kind is not Csv:
        assert b"agent.beta" in written or list(tmp_path.rglob("agent.beta"))


@pytest.mark.parametrize("kind", [Csv, TensorBoard, Mlflow])
def test_a_full_disk_costs_the_logger_and_is_made_up_for(
    kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = {Csv: of_csv, TensorBoard: of_tensorboard, Mlflow: of_mlflow}[kind]
    logger = begun(kind, tmp_path / "run")
    train(logger, 0, 2)
    with files_no_longer_than(10):
        for one in logger.loggers[1:]:
            train(one, 2, 4)
    assert len(warnings(caplog)) == 1
    assert f"logger={kind.__name__.lower()} is off" in warnings(caplog)[0]
    train(logger, 2, 4)
    logger.finish({}, {})
    train(begun(kind, tmp_path / "run", update=4), 4, 6)
    assert_whole(read(tmp_path / "run"), 6)


@pytest.mark.parametrize(("kind", "module"), [(TensorBoard, "tensorboard"), (Mlflow, "mlflow")])
def test_a_package_that_is_missing_costs_the_logger(
    kind: Any, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    logger = kind(folder=tmp_path / "run")
    train(logger, 0, 2)
    logger.finish({}, {})
    (said,) = warnings(caplog)
    assert said.endswith(f"pip install 'awr-exp[{module}]'")


def test_a_logger_without_its_package_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"^error: logger=mlflow needs a package .* 'awr-exp\[mlflow\]'$"):
        arguments.understood(["logger=[csv,mlflow]"])
    assert arguments.understood(["logger=[csv,wandb]"]) == ["logger=[csv,wandb]"]


def test_mlflow_has_settings_and_how_it_ended(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    place = (tmp_path / "elsewhere").as_uri()
    given = {"tracking_uri": place, "experiment": "mine", "group": "night", "name": "probe"}
    for code, status in ((0, "FINISHED"), (1, "FAILED"), (143, "KILLED")):
        folder = tmp_path / str(code)
        Mlflow(folder=folder, config=SECRET, **given).finish({}, {}, code)
        run = mlflow.MlflowClient(place).get_run((folder / "mlflow.run").read_text())
        assert (run.info.status, run.info.run_name, run.data.tags["group"]) == (status, "probe", "night")
        assert run.data.params == {"agent.beta": "0.3", "agent.head": "None", "hub.api_key": "***"}
    assert {one.name for one in mlflow.MlflowClient(place).search_experiments()} >= {"mine"}
    # Of a note that is none a new run is made.
    (tmp_path / "0" / "mlflow.run").write_text("../../etc/passwd")
    Mlflow(folder=tmp_path / "0", **given)
    assert len((tmp_path / "0" / "mlflow.run").read_text()) == 32


def test_mlflow_says_how_to_look_at_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    caplog.set_level("INFO")
    Mlflow(folder=tmp_path / "run").finish({}, {})
    place = (tmp_path / "mlruns").as_uri()
    assert f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {place}" in caplog.messages[0]
    assert warnings(caplog) == []


def test_a_server_that_is_gone_costs_mlflow_and_little_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("mlflow")
    logger = Mlflow(folder=tmp_path / "run", tracking_uri="http://127.0.0.1:9")
    logger.log(1, {"train/ess": 1.0})
    logger.finish({}, {})
    assert len([said for said in warnings(caplog) if said.startswith("logger=mlflow is off")]) == 1


def test_whose_server_a_strangers_run_may_log_to() -> None:
    node = {"_target_": "awr_exp.training.mlflow_mirror.Mlflow", "_partial_": True, "tracking_uri": "http://them"}
    with pytest.raises(UserError, match=r"wants to send its metrics to .*trust"):
        check_trusted({"logger": {"mlflow": node}}, Path("config.yaml"))
    check_trusted({"logger": {"mlflow": node | {"tracking_uri": None}}}, Path("config.yaml"))


def test_tensorboard_has_the_settings_as_hyperparameters(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    begun(TensorBoard, tmp_path).finish({}, {})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert b"agent.beta" in b"".join(events.PluginTagToContent("hparams").values())
