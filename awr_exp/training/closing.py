"""The end of a run: curves, loggers closed with the right code, and a short table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from awr_exp.data.transitions import DataInfo
from awr_exp.training import curves
from awr_exp.training.loggers import Logger
from awr_exp.training.offline import Offline
from awr_exp.training.progress import closing_table


def run(trainer: Offline, logger: Logger, folder: Path) -> dict[str, float]:
    """Train a single member to the end; however it ends, draw the curves and close the logger."""
    code = 1
    try:
        trainer.run()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
        raise
    finally:
        files = {"curves": curves.draw(folder), "checkpoint": folder / "checkpoint"}
        logger.finish(trainer.latest[0], {name: path for name, path in files.items() if path}, code)
    return trainer.latest[0]


def show(
    data: DataInfo,
    result: Mapping[str, float],
    baseline: Mapping[str, float] | None,
    folder: Path,
    cfg: Mapping[str, Any],
) -> None:
    """Print the returns of the data set, the baseline and the agent, and where everything is."""

    def outcome(metrics: Mapping[str, float]) -> str:
        if "eval/return_mean" not in metrics:
            return "not evaluated (env=none)"
        text = f"{metrics['eval/return_mean']:10.1f} ± {metrics['eval/return_std']:.1f}"
        score = metrics.get("eval/normalized_score")
        return text if score is None else f"{text}   normalised score {score:.3f}"

    rows = [(f"data set {data.id}", f"{data.return_mean:10.1f} ± {data.return_std:.1f}")]
    if baseline is not None:
        rows.append((f"baseline {_name(cfg['baseline'])}", outcome(baseline)))
    rows.append((_name(cfg["agent"]), outcome(result)))
    notes = [("results", str(folder))]
    if (folder / "curves.png").exists():
        notes.append(("curves", str(folder / "curves.png")))
    offline = sorted((folder / "wandb").glob("offline-run-*"))
    if offline:
        notes.append(("dashboard", f"wandb leet {offline[-1]}"))
    notes.append(("policy", f"awr_exp.load({str(folder)!r})"))
    closing_table([("return of", ""), *rows], notes)


def _name(agent: Mapping[str, Any]) -> str:
    return str(agent["_target_"]).rpartition(".")[2]
