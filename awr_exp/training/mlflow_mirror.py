"""A logger that mirrors the rows of metrics.jsonl in MLflow."""

import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awr_exp import results, shell
from awr_exp.ranges import Text, checked
from awr_exp.training.mirrors import Mirror, Place, Values, step
from awr_exp.training.redaction import redact

log = logging.getLogger(__name__)


@checked("logger.mlflow")
class Mlflow(Mirror):
    """A run of MLflow: on the server that MLFLOW_TRACKING_URI names, or in the folder `mlruns/` of where one is.

    tracking_uri: another server, database or folder; experiment: where runs are collected, else MLFLOW_EXPERIMENT_NAME
    or awr_exp; group: of a sweep, which its runs have as the tag `group`; name: else MLflow invents one.
    """

    extra = "mlflow"

    def __init__(
        self,
        folder: Path,
        tracking_uri: Text | None = None,
        experiment: Text | None = None,
        group: Text | None = None,
        name: Text | None = None,
        config: Mapping[str, Any] | None = None,
        update: int = 0,
        run_id: str | None = None,
    ) -> None:
        self.uri, self.experiment = tracking_uri, experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "awr_exp"
        self.name, self.group, self.note = redact(name), redact(group), Path(folder) / "mlflow.run"
        self.last: dict[str, int] = {}
        """The newest step of each metric that MLflow has: it forgets nothing, so what is there is not sent again."""
        super().__init__(folder, config)

    def begin(self, config: Mapping[str, Any]) -> None:
        # A folder is enough for one person, a server that is gone is not waited for, and MLflow's makers learn nothing.
        for name, value in (
            ("ALLOW_FILE_STORE", "true"), ("HTTP_REQUEST_MAX_RETRIES", "1"), ("HTTP_REQUEST_TIMEOUT", "20"),
            ("DISABLE_TELEMETRY", "true"),
        ):  # fmt: skip
            os.environ.setdefault(f"MLFLOW_{name}", value)
        from mlflow import MlflowClient

        uri = self.uri or os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
        self.client = MlflowClient(uri)
        if uri.startswith("file:"):
            look = shell.words("mlflow", "ui", "--backend-store-uri", uri)
            log.info("MLflow writes into a folder. Look: MLFLOW_ALLOW_FILE_STORE=true %s", look)
        self.id = self._again() or self._new(config)
        for at, values in self.kept():
            self.add(at, values)

    def _again(self) -> str | None:
        """The run's id, if MLflow has it already."""
        from mlflow.exceptions import MlflowException

        id = self.note.read_text(encoding="utf-8") if self.note.exists() else ""
        if not re.fullmatch(r"[0-9a-f]{32}", id):
            return None
        try:
            known = self.client.get_run(id).data.metrics
        except MlflowException:
            # Of another server or folder.
            return None
        self.last = {name: max(one.step for one in self.client.get_metric_history(id, name)) for name in known}
        self.client.update_run(id, status="RUNNING")
        return id

    def _new(self, config: Mapping[str, Any]) -> str:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        try:
            experiment = self.client.create_experiment(self.experiment)
        except MlflowException:
            # It is there, if only since now.
            if (found := self.client.get_experiment_by_name(self.experiment)) is None:
                raise
            experiment = found.experiment_id
        tags = {"folder": redact(self.folder.absolute())} | ({"group": self.group} if self.group else {})
        id = str(self.client.create_run(experiment, run_name=self.name, tags=tags).info.run_id)
        results.atomic_write(self.note, id.encode())
        params = [Param(name, str(value)) for name, value in config.items()]
        for begin in range(0, len(params), 100):
            self.client.log_batch(id, params=params[begin : begin + 100])
        return id

    def add(self, place: Place, metrics: Values) -> None:
        from mlflow.entities import Metric

        now, at = int(1000 * time.time()), step(place)
        new = {name: float(value) for name, value in metrics.items() if at > self.last.get(name, -1)}
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, at) for name, value in new.items()])
        self.last |= dict.fromkeys(new, at)

    def end(self, exit_code: int) -> None:
        self.client.set_terminated(self.id, "FINISHED" if exit_code == 0 else "KILLED" if exit_code > 128 else "FAILED")
