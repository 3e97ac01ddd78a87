"""The default run and behaviour cloning on ten seeds, as a picture: every seed is a line, and the band is their spread.

python benchmarks/default_run.py [folder of the sweep, if it was trained before]
"""

import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from awr_exp import results
from awr_exp.training.rows import read

SWEEP = Path("outputs/sweeps/default_run")
COMMAND = ["agent=awr,bc", "seed=range(10)", "trainer.eval_interval=500", "logger=jsonl", f"hydra.sweep.dir={SWEEP}"]
PICTURE = Path(__file__).parents[1] / "docs" / "pendulum.png"
NAMES = {"awr": "AWR", "bc": "behaviour cloning"}


def curves(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each agent the updates [T] of its evaluations, and their mean returns [seeds, T]."""
    found: dict[str, list[list[tuple[int, float]]]] = {}
    for run in results.runs(folder):
        rows = [(row["update"], row["value"]) for row in read(run.folder) if row["name"] == "eval/return_mean"]
        found.setdefault((results.overrides(run.folder) or {})["agent"], []).append(rows)
    return {name: (np.array(runs)[0, :, 0], np.array(runs)[:, :, 1]) for name, runs in found.items()}


def draw(folder: Path) -> None:
    figure, axes = plt.subplots(figsize=(7.5, 4), constrained_layout=True)
    data = next(row["value"] for row in read(results.runs(folder)[0].folder) if row["name"] == "dataset/return_mean")
    axes.axhline(data, color="0.4", linestyle="--", label=f"mean of the data: {data:.0f}")
    for color, (name, (updates, returns)) in zip(("C0", "C1"), curves(folder).items(), strict=True):
        last = f"{returns[:, -1].min():.0f} to {returns[:, -1].max():.0f}"
        axes.plot(updates, returns.T, color=color, linewidth=0.6)
        axes.plot(updates, returns.mean(0), color=color, linewidth=2, label=f"{NAMES[name]}, ten seeds: {last}")
        axes.fill_between(updates, returns.min(0), returns.max(0), color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="updates", ylabel="return, mean of twenty episodes")
    axes.legend(loc="lower right")
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        subprocess.run([sys.executable, "-m", "awr_exp.main", "-m", *COMMAND], check=True)
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else SWEEP)
