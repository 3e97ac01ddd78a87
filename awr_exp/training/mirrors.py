"""Loggers that mirror the rows of metrics.jsonl elsewhere: in a table, and for TensorBoard.

A mirror begins with the rows that the run has kept so far. So nothing is twice or missing of a run that is resumed, and
one that is given a mirror only then has all its rows there, too.
"""

import csv
import io
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from awr_exp import results
from awr_exp.errors import named
from awr_exp.training import rows
from awr_exp.training.redaction import redact

log = logging.getLogger(__name__)

Place = tuple[int, int]
"""An update and an environment step."""
PLACE = ("update", "env_steps")
Values = Mapping[str, float]


class Mirror:
    """A logger that shows what `metrics.jsonl` has. Whatever goes wrong costs a warning, then it, never the run.

    folder: of the run, whose rows are there already; config: shown beside the run, stripped of secrets by `redact`.
    """

    extra = ""
    """The extra of awr_exp that brings what it needs."""

    def __init__(
        self, folder: Path, config: Mapping[str, Any] | None = None, update: int = 0, run_id: str | None = None
    ) -> None:
        self.folder, self._off = Path(folder), False
        self._spare_the_run(self.folder.mkdir, 0o777, True, True)
        self._spare_the_run(self.begin, results.leaves(redact(config or {})))

    def log(self, update: int, metrics: Values) -> None:
        place = update, int(metrics.get("env_steps", 0))
        self._spare_the_run(self.add, place, {name: metrics[name] for name in metrics if name != "env_steps"})

    def finish(self, summary: Mapping[str, Any], files: Mapping[str, Path], exit_code: int = 0) -> None:
        self._spare_the_run(self.end, exit_code)

    def begin(self, config: Mapping[str, Any]) -> None:
        """Begin with the rows that the run has kept; config: by dotted names."""
        raise NotImplementedError

    def add(self, place: Place, metrics: Values) -> None:
        """Add the metrics of a place in training, which may be that of the call before."""
        raise NotImplementedError

    def end(self, exit_code: int) -> None:
        """Close."""

    def kept(self) -> Iterator[tuple[Place, dict[str, float]]]:
        """The metrics of each place that the run has kept, in order; nan where there was no number."""
        for place, found in groupby(rows.read(self.folder), itemgetter(*PLACE)):
            yield place, {row["name"]: math.nan if row["value"] is None else row["value"] for row in found}

    def _spare_the_run(self, call: Callable[..., None], *given: Any) -> None:
        if self._off:
            return
        try:
            call(*given)
        except Exception as error:
            reason = named(error)
            if self.extra and isinstance(error, ImportError):
                reason = f"{error.name} is not installed: pip install 'awr-exp[{self.extra}]'"
            name = type(self).__name__.lower()
            log.warning("logger=%s is off, and filled in once the run is resumed with it: %s", name, reason)
            self._off = True


def step(place: Place) -> int:
    """What a curve is drawn over: environment steps where the run collects, or else updates."""
    update, env_steps = place
    return env_steps or update


class Csv(Mirror):
    """A table, `metrics.csv`, with a row for each place in training and a column for each metric."""

    def begin(self, config: Mapping[str, Any]) -> None:
        self.path, self.columns = self.folder / "metrics.csv", list[str]()
        # The last row, and where it begins in the file: it may get more, and is then written again.
        self.row, self.start = dict[str, float](), 0
        self._write_anew()

    def add(self, place: Place, metrics: Values) -> None:
        row = dict(zip(PLACE, place, strict=True))
        before = self.row if row.items() <= self.row.items() else {}
        if not {*row, *metrics} <= set(self.columns):
            # A new column. The rows of this call are kept already.
            return self._write_anew()
        self.row = row | before | dict(metrics)
        with self.path.open("r+b") as file:
            self.start = file.seek(self.start if before else 0, os.SEEK_SET if before else os.SEEK_END)
            file.write(self._lines([self.row]))
            file.truncate()

    def _write_anew(self) -> None:
        found = [dict(zip(PLACE, place, strict=True)) | values for place, values in self.kept()]
        self.columns = list(dict.fromkeys([*PLACE, *(name for row in found for name in row)]))
        *most, self.row = found or [{}]
        head = self._lines([dict(zip(self.columns, self.columns, strict=True)), *most])
        results.atomic_write(self.path, head + (self._lines([self.row]) if found else b""))
        self.start = len(head)

    def _lines(self, found: Sequence[Mapping[str, Any]]) -> bytes:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(found)
        return text.getvalue().encode()


class TensorBoard(Mirror):
    """Event files in the folder `tensorboard/`, which `tensorboard --logdir outputs` shows beside those of other runs.

    The settings are there as hyperparameters.
    """

    extra = "tensorboard"

    def begin(self, config: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        place, name = self.folder / "tensorboard", "events.out.tfevents.{}.awr_exp"
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob(name.format("*")):
            old.unlink()
        self.file = (place / name.format(f"{time.time():017.6f}")).open("wb")
        self.writer = RecordWriter(self.file)
        self._write(file_version="brain.Event:2")
        # Of a run that is resumed, a TensorBoard that is open forgets what it has seen.
        self._write(session_log=SessionLog(status=SessionLog.START))
        plain = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in config.items()}
        self._write(summary=hparams_pb(plain))
        for at, values in self.kept():
            self.add(at, values)

    def add(self, place: Place, metrics: Values) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(step=step(place), summary=Summary(value=values))
        self.file.flush()

    def end(self, exit_code: int) -> None:
        self.file.close()

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.write(Event(wall_time=time.time(), **content).SerializeToString())
