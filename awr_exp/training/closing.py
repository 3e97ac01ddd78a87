"""The end of runs: curves, loggers closed with the right code, a result file each, and a short table."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from awr_exp import results, shell
from awr_exp.errors import UserError
from awr_exp.math import diagnosis
from awr_exp.training import curves
from awr_exp.training.progress import closing_table
from awr_exp.training.run import Run, side_by_side
from awr_exp.training.trainer import Trainer
from awr_exp.types import DataInfo

log = logging.getLogger(__name__)
MOST_DRAWN = 50
"""Runs that train together of which each gets its curves: a picture takes a fifth of a second."""


def run(trainer: Trainer) -> None:
    """Train all runs to the end; however it ends, draw each one's curves, close its logger, write its result."""
    for run in trainer.runs:
        (run.folder / results.RESULT).unlink(missing_ok=True)
    begun = time.perf_counter()
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
        drawn = _drawn(trainer.runs)

        def close(member: int) -> None:
            update, env_steps = trainer.counts(member)
            result = {"update": update, "env_steps": env_steps, "seconds": seconds, "evaluation_share": share}
            with trainer.runs[member].speaking():
                _close(trainer.runs[member], drawn[member], status, code, result)

        side_by_side(close, range(len(trainer.runs)))


def _drawn(runs: Sequence[Run]) -> list[dict[str, Path]]:
    """The pictures of runs by name, one after another: they are drawn by a library that knows of no threads."""
    if len(runs) > MOST_DRAWN:
        log.info("%d runs get no curves.png each: the report shows them, or awr-exp report <folder of one>", len(runs))
        return [{} for _ in runs]
    found = []
    for run in runs:
        with run.speaking():
            picture = curves.draw(run.folder)
        found.append({"curves": picture} if picture else {})
    return found


def _close(run: Run, drawn: Mapping[str, Path], status: str, code: int, result: dict[str, Any]) -> None:
    error, files = run.outcome.error, {**drawn, "checkpoint": run.folder / "checkpoint"}
    if run.logger:
        run.logger.finish(run.latest, files, 1 if error else code)
    result |= {
        "status": results.FAILED if error else status,
        "error": str(error) if error else None,
        "metrics": run.latest,
        "returns": run.returns,
    }
    if not (results.write(run.folder, result) or error):
        run.lost = UserError(f"{run.folder / results.RESULT} could not be written: make room, then resume")


def show(data: DataInfo | None, run: Run, baseline: Run | None) -> None:
    """Print the returns of the data set, the baseline and the agent, what is wrong, and where everything is."""

    def told(one: Run) -> tuple[str, str]:
        metrics, estimate = one.latest, ""
        if one.outcome.error is not None:
            return f"failed: {one.outcome.error}", ""
        if "fqe/return_mean" in metrics:
            estimate = "{:10.1f} ({:.1f} to {:.1f})".format(
                *(metrics[f"fqe/return_{end}"] for end in ("mean", "low", "high"))
            )
        if "eval/return_mean" not in metrics:
            return "not evaluated", estimate
        text = f"{metrics['eval/return_mean']:10.1f} ± {metrics['eval/return_std']:.1f}"
        score = metrics.get("eval/normalized_score")
        return text if score is None else f"{text}   normalised score {score:.3f}", estimate

    rows: list[tuple[str, ...]] = [("return of", "")]
    if data:
        rows.append((f"data set {data.id}", f"{data.return_mean:10.1f} ± {data.return_std:.1f}"))
    if baseline is not None:
        rows.append((f"baseline {run.chosen('baseline')}", *told(baseline)))
    fell = (("at the start", "eval/return_at_start"), ("lowest since", "eval/return_lowest"))
    rows += [(name, f"{run.latest[metric]:10.1f}") for name, metric in fell if metric in run.latest]
    rows.append((run.chosen("agent"), *told(run)))
    recent = run.latest.get("eval/return_recent")
    if recent is not None and recent != run.latest.get("eval/return_mean"):
        rows.append(("mean of its last few", f"{recent:10.1f}"))
    if "fqe/gamma" in run.latest:
        # Beside the data's row, what their own actions are worth.
        heads = [f"estimate, discounted by {run.latest['fqe/gamma']:g}", f"{run.latest['fqe/data_return']:10.1f}"]
        rows[:2] = [(*row, head) for row, head in zip(rows[:2], heads, strict=True)]
    judges = [(run.chosen("agent"), run), *([(run.chosen("baseline"), baseline)] if baseline else [])]
    judged = [(f"held out ({name})", said) for name, one in judges if (said := _judged(one.latest))]
    folder = shell.near(run.folder)
    notes = [*judged, *_diagnosed(run), ("results", str(folder))]
    if (folder / "curves.png").exists():
        notes.append(("curves", str(folder / "curves.png")))
    if next((folder / "wandb").glob("offline-run-*"), None):
        notes.append(("dashboard", shell.command("leet", str(folder / "wandb"), module="wandb")))
    notes.append(("policy", f"awr_exp.load({str(folder)!r})"))
    closing_table(rows, notes)


JUDGED = {
    "nll": "NLL", "loss": "loss", "weighted_nll": "weighted", "weighted_loss": "weighted", "value_error": "value error"
}  # fmt: skip
"""What is said of episodes that are held out, by the metric, in this order."""


def _judged(metrics: Mapping[str, float]) -> str:
    """What a policy makes of the episodes that are held out, or nothing."""
    known = {f"heldout/{name}": said for name, said in JUDGED.items()}
    return ", ".join(f"{said} {metrics[name]:.4g}" for name, said in known.items() if name in metrics)


def _diagnosed(run: Run) -> list[tuple[str, str]]:
    """What is wrong with a run that came to its end, the likeliest cause first."""
    if run.outcome.error is not None:
        return []
    said = diagnosis.said(diagnosis.diagnose(run.latest, results.leaves(run.config)))
    return list(zip(("diagnosis", "beside that"), said or ["nothing found"], strict=False))
