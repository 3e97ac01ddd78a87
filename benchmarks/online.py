"""Online results beside the authors' own: `python benchmarks/online.py halfcheetah hopper`.

Each task is a multirun of its recipe over seeds, all in one process. Writes a table (online.md) and, for tasks of which
there are published curves (author_curves.csv: mean and standard deviation over their seeds, of the -v2 environments of
2019), our curves over theirs (online.png). A task whose sweep is complete in the output folder is only read again.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from awr_exp.training.rows import read

REFERENCE = Path(__file__).with_name("author_curves.csv")
HALFCHEETAH = [(1_000_000, 3446), (2_000_000, 5159), (3_000_000, 6382)]
ANT = [(3_000_000, 1467), (4_000_000, 2054), (5_000_000, 2557)]
# Ant falls in some episodes, so that few tell little.
HUNDRED = ["trainer.eval_episodes=100", "trainer.eval_interval=500_000"]
# Experiment, name in the reference, seeds, further overrides, and (environment steps, return to reach).
TASKS = {
    "cartpole": ("online_cartpole", None, 5, [], [(50_000, 475)]),
    "pendulum": ("online_pendulum", None, 5, [], [(100_000, -200)]),
    "lunarlander": ("online_lunarlander", "LunarLander", 3, [], [(1_000_000, 193)]),
    "halfcheetah": (
        "online_halfcheetah", "HalfCheetah", 4, ["trainer.env_steps=3_000_000"],
        HALFCHEETAH,
    ),
    "halfcheetah_2019": (
        "online_halfcheetah", "HalfCheetah", 4,
        ["trainer.env_steps=3_000_000", "env.id=awr_exp.envs.mujoco_2019:HalfCheetah2019-v5"],
        HALFCHEETAH,
    ),
    "hopper": ("online_hopper", "Hopper", 4, [], [(1_000_000, 2673)]),
    "ant": ("online_ant", "Ant", 4, HUNDRED, ANT),
    "ant_2019": ("online_ant", "Ant", 4, [*HUNDRED, "env.id=awr_exp.envs.mujoco_2019:Ant2019-v5"], ANT),
    "tuned_halfcheetah": (
        "online_tuned_halfcheetah", "HalfCheetah", 3, ["trainer.env_steps=3_000_000"],
        HALFCHEETAH,
    ),
    "tuned_ant": ("online_tuned_ant", "Ant", 3, HUNDRED, ANT),
}  # fmt: skip
Curve = dict[int, float]


def sweep(folder: Path, experiment: str, seeds: int, overrides: list[str]) -> None:
    seed_list = ",".join(map(str, range(seeds)))
    command = [
        sys.executable,
        "-m",
        "awr_exp.main",
        "-m",
        f"experiment={experiment}",
        f"seed={seed_list}",
        "logger=jsonl",
    ]
    command += [
        *overrides,
        f"sweep.resume={folder}" if (folder / "multirun.yaml").exists() else f"hydra.sweep.dir={folder}",
    ]
    print("+", " ".join(command[1:]), flush=True)
    subprocess.run(command, check=True)


def curve(run: Path) -> Curve:
    """Evaluation returns by environment steps."""
    return {row["env_steps"]: row["value"] for row in read(run) if row["name"] == "eval/return_mean"}


def at(own: Curve, steps: int) -> float:
    """The first evaluation from `steps` on, or the last one before if training ends within an iteration of them."""
    later = [step for step in own if step >= steps]
    return own[min(later)] if later else own[max(own)]


def reference(name: str | None) -> list[tuple[int, float, float]]:
    with REFERENCE.open() as file:
        rows = [row for row in csv.DictReader(file) if row["env"] == name]
    return [(int(r["samples"]), float(r["test_return_mean"]), float(r["test_return_std"])) for r in rows]


def draw(curves: dict[str, list[Curve]], path: Path) -> None:
    drawn = [task for task in curves if reference(TASKS[task][1])]
    if not drawn:
        return
    figure, axes = plt.subplots(1, len(drawn), figsize=(4 * len(drawn), 3), squeeze=False, layout="constrained")
    for axis, task in zip(axes[0], drawn, strict=True):
        longest = max(max(own) for own in curves[task])
        theirs = [row for row in reference(TASKS[task][1]) if row[0] <= 1.05 * longest]
        steps, mean, std = (list(column) for column in zip(*theirs, strict=True))
        axis.plot(steps, mean, "o-", color="0.4", label="authors, ten seeds")
        axis.fill_between(
            steps, [m - s for m, s in zip(mean, std, strict=True)], [m + s for m, s in zip(mean, std, strict=True)],
            color="0.4", alpha=0.2, linewidth=0,
        )  # fmt: skip
        for own in curves[task]:
            axis.plot(list(own), list(own.values()), color="C0", alpha=0.5, linewidth=1)
        axis.plot([], color="C0", label="ours, a line a seed")
        axis.set_title(task)
        axis.set_xlabel("environment steps")
    axes[0][0].set_ylabel("evaluation return")
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), choices=[*TASKS, []])
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/online"))
    parser.add_argument("--override", action="append", default=[], help="of every run, such as threads=1")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[Curve]] = {}
    table = ["| task | environment steps | to reach | mean of ours | seeds | minutes |", "|---|---|---|---|---|---|"]
    for task in options.tasks:
        experiment, _, seeds, overrides, goals = TASKS[task]
        folder = (options.out / task).resolve()
        sweep(folder, experiment, seeds, [*overrides, *options.override])
        runs = sorted(path.parent for path in folder.glob("*/result.json"))
        curves[task] = [curve(run) for run in runs]
        # Of the last attempt, where a sweep was interrupted.
        minutes = max(json.loads((run / "result.json").read_text())["seconds"] for run in runs) / 60
        for steps, goal in goals:
            returns = [at(own, steps) for own in curves[task]]
            each = ", ".join(f"{value:.0f}" for value in returns)
            table.append(
                f"| {task} | {steps:,} | {goal} | {statistics.mean(returns):.0f} ({each}) | {seeds} | {minutes:.1f} |"
            )
        # After each task: the next one may take an hour.
        (options.out / "online.md").write_text("\n".join(table) + "\n")
        draw(curves, options.out / "online.png")
    print("\n".join(table))


if __name__ == "__main__":
    main()
