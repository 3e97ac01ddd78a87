"""The end of runs: curves, loggers closed with the right code, a result file each, and a short table."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awr_exp import results, shell
from awr_exp.data.transitions import DataInfo
from awr_exp.errors import UserError
from awr_exp.results import Outcome
from awr_exp.training import curves
from awr_exp.training.loggers import Logger
from awr_exp.training.progress import closing_table, speaking
from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)


def run(trainer: Trainer, loggers: Sequence[Logger], folders: Sequence[Path]) -> list[Outcome]:
    """Train all members to the end; however it ends, draw each one's curves, close its logger, write its result."""
    for folder in folders:
        (folder / results.RESULT).unlink(missing_ok=True)
    begun, outcomes = time.perf_counter(), []
    status, code = results.FAILED, 1
    try:
        trainer.run()
        status, code = results.FINISHED, 0
    except SystemExit as stop:
        status, code = results.STOPPED, stop.code if isinstance(stop.code, int) else 1
        raise
    finally:
        seconds = time.perf_counter() - begun
        share = trainer.evaluating / max(seconds, 1e-9)
        log.info("%.1f s of training, %.0f%% of it evaluation", seconds, 100 * share)
        for member, (logger, folder) in enumerate(zip(loggers, folders, strict=True)):
            error = trainer.failed[member] or trainer.lost[member]
            with speaking(folder, trainer.names[member]):
                drawn = {"curves": curves.draw(folder), "checkpoint": folder / "checkpoint"}
                files = {name: path for name, path in drawn.items() if path}
                logger.finish(trainer.latest[member], files, 1 if error else code)
                kept = results.write(
                    folder,
                    {
                        "status": results.FAILED if error else status,
                        "error": str(error) if error else None,
                        "update": trainer.member_update(member),
                        "env_steps": trainer.member_env_steps(member),
                        "metrics": trainer.latest[member],
                        "returns": trainer.returns[member],
                        "seconds": seconds,
                        "evaluation_share": share,
                    },
                )
            if not (error or kept):
                error = UserError(f"{folder / results.RESULT} could not be written: make room, then resume")
            outcomes.append(Outcome(trainer.latest[member], error))
    return outcomes


def show(
    data: DataInfo | None,
    result: Outcome,
    baseline: Outcome | None,
    folder: Path,
    cfg: Mapping[str, Any],
) -> None:
    """Print the returns of the data set, the baseline and the agent, and where everything is."""

    def told(outcome: Outcome) -> str:
        metrics = outcome.metrics
        if outcome.error is not None:
            return f"failed: {outcome.error}"
        if "eval/return_mean" not in metrics:
            return "not evaluated (env=none)"
        text = f"{metrics['eval/return_mean']:10.1f} ± {metrics['eval/return_std']:.1f}"
        score = metrics.get("eval/normalized_score")
        return text if score is None else f"{text}   normalised score {score:.3f}"

    rows = [(f"data set {data.id}", f"{data.return_mean:10.1f} ± {data.return_std:.1f}")] if data else []
    if baseline is not None:
        rows.append((f"baseline {_name(cfg['baseline'])}", told(baseline)))
    rows.append((_name(cfg["agent"]), told(result)))
    notes = [("results", str(folder))]
    if (folder / "curves.png").exists():
        notes.append(("curves", str(folder / "curves.png")))
    offline = sorted((folder / "wandb").glob("offline-run-*"))
    if offline:
        notes.append(("dashboard", shell.command("leet", str(offline[-1]), module="wandb")))
    notes.append(("policy", f"awr_exp.load({str(folder)!r})"))
    closing_table([("return of", ""), *rows], notes)


def _name(agent: Mapping[str, Any]) -> str:
    return str(agent["_target_"]).rpartition(".")[2]
