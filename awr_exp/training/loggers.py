"""Where a run's metrics go: tidy rows in its folder, and Weights & Biases. No logger ever ends a run."""

import errno
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Literal

from awr_exp import shell
from awr_exp.errors import named
from awr_exp.ranges import Text, Texts, checked
from awr_exp.training import artifacts
from awr_exp.training.redaction import command_line_has_a_secret, redact
from awr_exp.training.rows import METRICS, divided, finite, forget_after
from awr_exp.training.wandb_settings import answers, known, possible, settle_cache, tell_packages

log = logging.getLogger(__name__)

PAUSE = 300.0
"""Seconds in which a server that was out of reach is not tried again."""


class Jsonl:
    """Appends rows {"update", "env_steps", "name", "value"} to `<folder>/metrics.jsonl`, one JSON a line.

    Rows later than `update` and `env_steps` and broken ones are dropped first, so that the file of a run resumed from
    there equals that of an uninterrupted one. What is not finite becomes null. A full disk costs one warning and
    the rows that it had no room for. `config` and `run_id` are what other loggers need.
    """

    def __init__(
        self,
        folder: Path,
        update: int = 0,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        env_steps: int = 0,
    ) -> None:
        self.path = Path(folder) / METRICS
        self._warned = False
        with self._sparing_the_run():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            forget_after(self.path, (update, env_steps))

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        env_steps = int(metrics.get("env_steps", 0))
        rows = "".join(
            json.dumps({"update": update, "env_steps": env_steps, "name": name, "value": finite(value)}) + "\n"
            for name, value in metrics.items()
            if name != "env_steps"
        ).encode()
        with self._sparing_the_run(), self.path.open("ab", buffering=0) as file:
            start = file.tell()
            if file.write(rows) != len(rows):
                # Half a row would swallow the next one, should there be room again.
                file.truncate(start)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def finish(self, summary: Mapping[str, Any], files: Mapping[str, Path], exit_code: int = 0) -> None:
        """Nothing to close: every row is already on disk."""

    @contextmanager
    def _sparing_the_run(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._warned:
                log.warning("metrics are missing from %s: %s", self.path, error.strerror or error)
            self._warned = True


@checked("logger.wandb")
class Wandb:
    """Sends metrics to Weights & Biases. Whatever goes wrong there costs a warning, then W&B, never the run.

    What is None, or empty, is what W&B's own environment variables say (WANDB_PROJECT, WANDB_TAGS, ...).

    Args:
        folder: where W&B keeps the run, in a folder `wandb/`; WANDB_DIR is another.
        project: without it, and a WANDB_PROJECT, awr_exp; likewise job_type, train.
        mode: "online", "offline", "disabled", or "auto": what WANDB_MODE says, else online if an API key is
            configured, else offline. Online without a key, or with a server out of reach for `init_timeout` seconds,
            means offline.
        log_model: upload the best checkpoint as the artifact model-<id>, which `awr_exp.load` takes.
        log_curves: upload the picture of the learning curves.
        config: shown beside the run, stripped of secrets by `redact`.
        run_id: the run to continue, from the checkpoint.
        update: what the run continues from; an image without metrics before it is filed there.

    Attributes:
        id: the W&B run's id, to be stored in checkpoints; `run_id` again where W&B could not start.
    """

    _out_of_reach_until = -math.inf

    def __init__(
        self,
        folder: Path,
        project: Text | None = None,
        entity: Text | None = None,
        group: Text | None = None,
        job_type: Text | None = None,
        tags: Texts = (),
        name: Text | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        log_model: bool = False,
        log_curves: bool = True,
        init_timeout: float = 20.0,
        finish_timeout: float = 30.0,
        config: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        update: int = 0,
    ) -> None:
        self.id, self.log_model, self.log_curves = run_id, log_model, log_curves
        self._update, self._off = update, False
        self.url: str | None = None
        """The run's page; None offline."""
        self._run: Any = None
        about: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group,
            "job_type": job_type or os.environ.get("WANDB_JOB_TYPE") or "train",
            "name": name,
        }
        about |= {"tags": list(tags) or None, "config": config or {}}
        timeouts = {"init_timeout": init_timeout, "finish_timeout": finish_timeout}
        settings: dict[str, Any] = {
            name: value for name, value in timeouts.items() if f"WANDB_{name.upper()}" not in os.environ
        }
        # W&B records the command line as it is, or nothing about machine and program.
        settings["x_disable_meta"] = command_line_has_a_secret()
        with self._sparing_the_run("starting"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            settle_cache(Path(folder))
            about |= {} if os.environ.get("WANDB_DIR") else {"dir": str(folder)}
            self._run = self._start(mode, settings, redact(about))

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        self._update = update
        if self._run is not None and not self._off:
            with self._sparing_the_run("logging"):
                once, curves = divided(metrics)
                if once:
                    self._run.summary.update(once)
                if curves:
                    self._run.log({**curves, "trainer/update": update})

    def film(self, update: int, path: Path) -> None:
        if self._run is not None and not self._off:
            import wandb

            with self._sparing_the_run("showing a film"):
                self._run.log({"video": wandb.Video(str(path), format="mp4"), "trainer/update": update})

    def finish(self, summary: Mapping[str, Any], files: Mapping[str, Path], exit_code: int = 0) -> None:
        run, self._run = self._run, None
        if run is None:
            return
        if not self._off:
            with self._sparing_the_run("finishing"):
                run.summary.update(dict(summary))
                if self.url and not answers(run.settings.base_url):
                    return self._leave(run, exit_code)
                self._upload(run, files)
        # Also after a failure: what W&B already has should be closed with the right exit code.
        with self._sparing_the_run("finishing"):
            run.finish(exit_code=exit_code)

    def _start(self, mode: str, settings: dict[str, Any], about: dict[str, Any]) -> Any:
        """The W&B run, or None where the user wants none."""
        mode = possible(mode, out_of_reach=time.monotonic() < Wandb._out_of_reach_until)
        if mode == "disabled":
            return None
        import wandb

        about["project"] = about["project"] or wandb.setup().settings.project or "awr_exp"

        def start(mode: Any, run_id: str | None) -> Any:
            return wandb.init(
                mode=mode,
                id=run_id,
                resume="allow" if run_id else None,
                # Otherwise a second run in this process would be logged into the first.
                reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", finish_timeout_raises=True, **known(), **settings),
                **about,
            )

        try:
            run = start(mode, self.id)
        except wandb.Error as error:
            if mode != "online":
                raise
            log.warning("W&B cannot be used online, this run is logged offline: %s", named(error))
            Wandb._out_of_reach_until = time.monotonic() + PAUSE
            # Under a new id: within one process W&B holds on to the id of the start that failed.
            run = start("offline", secrets.token_hex(4))
        tell_packages(run)
        run.define_metric("*", step_metric="trainer/update")
        self.id = self.id or run.id
        if run.settings.mode == "online":
            # Offline W&B would warn that there is none.
            self.url = run.url
        if run.settings.mode == "offline":
            merge, folder = ["--id", str(self.id)] if run.id != self.id else [], shell.near(Path(run.settings.sync_dir))
            for told, words in (("look", ["leet"]), ("upload", ["sync", *merge])):
                log.info("W&B offline, %s: %s", told, shell.command(*words, str(folder), module="wandb"))
        return run

    def _leave(self, run: Any, exit_code: int) -> None:
        """Close a run whose server is out of reach. W&B goes on trying for a while, and nobody waits for that."""
        folder = Path(run.settings.sync_dir)
        again = shell.command("sync", str(shell.near(folder)), module="wandb")
        log.warning("W&B is out of reach, and has not all of this run. Once it is back: %s", again)

        def close() -> None:
            with suppress(Exception):
                run.finish(exit_code=exit_code)

        Thread(target=close, daemon=True).start()

    def _upload(self, run: Any, files: Mapping[str, Path]) -> None:
        import wandb

        curves, checkpoints = files.get("curves"), files.get("checkpoint")
        if self.log_curves and curves and curves.is_file():
            run.log({"curves": wandb.Image(str(curves)), "trainer/update": self._update})
        if self.log_model and checkpoints:
            artifacts.upload(run, self.id, checkpoints)

    @contextmanager
    def _sparing_the_run(self, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._off:
                log.warning("W&B is off for the rest of this run, %s it failed: %s", doing, named(error))
            self._off = True
