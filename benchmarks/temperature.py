"""Whether a temperature that sets itself does as well as the best of a grid: `python benchmarks/temperature.py`.

On each data set, a built-in one or a Minari id, it trains agent=awr on a grid of betas, with the default agent and with
raw advantages, and with each weighting that finds its own temperature or has none. `--targets 0.2 0.37 0.6` tries
several settings of one. Settings of a kind and all seeds train as one model, by a multirun in a folder of its own,
which is continued where it was left, and only read where it is complete. A row for each run is written to
temperature.json, and a table to temperature.md.

A run's return is the mean of its last three evaluations, a setting's that of its seeds. Its share of the best beta is
(return - worst) / (best - worst): best is the best setting of both grids, and worst the return of the data set's random
policy or, where the set names none, the worst setting of both grids. So 1 is as good as the best beta, whatever the
sign of returns. What is to be trusted without a search is the setting whose least share over the data sets is largest.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from awr_exp import results
from awr_exp.training.rows import series

BUILT_IN = ("pendulum_mixed", "cartpole_mixed", "two_ways")
NEEDS = {"two_ways": ["head=mixture"]}
"""What a data set needs besides a temperature: a Gaussian has no way around the obstacle."""
GRIDS = ("standardised", "raw")
SCORE = "normalized_score"
LAST = 3
"""Evaluations whose mean is a run's return."""
Row = dict[str, Any]
Kind = tuple[str, list[str], str, Sequence[float]]
"""Name, overrides, the setting that differs, and its values."""


def kinds(options: argparse.Namespace) -> Iterator[Kind]:
    yield "standardised", [], "agent.beta", options.betas
    yield "raw", ["agent.standardize_advantages=false"], "agent.beta", options.betas
    yield "adaptive_ess", ["weighting=adaptive_ess"], "weighting.target", options.targets
    yield "adaptive_kl", ["weighting=adaptive_kl"], "weighting.epsilon", options.epsilons
    yield "sigmoid", ["weighting=sigmoid"], "agent.beta", options.sigmoid_betas
    yield "quantile", ["weighting=quantile"], "weighting.top_percent", options.top_percents


def train(place: Path, arguments: list[str], runs: int) -> Path:
    """Train a multirun of so many runs, unless that is done; its folder, which is of these arguments alone."""
    digest = hashlib.sha256(json.dumps(sorted(arguments)).encode()).hexdigest()[:8]
    folder = place.resolve().with_name(f"{place.name}_{digest}")
    if sum(run.status == results.FINISHED for run in results.runs(folder)) >= runs:
        return folder
    where = "sweep.resume" if (folder / "multirun.yaml").exists() else "hydra.sweep.dir"
    command = [sys.executable, "-m", "awr_exp.main", "-m", *arguments, f"{where}='{folder}'"]
    print("+", " ".join(command[1:]), flush=True)
    # A run that fails leaves its row out, and no other.
    subprocess.run(command, check=False)
    return folder


def rows(folder: Path, dataset: str, kind: str, name: str) -> Iterator[Row]:
    """What each finished run in the folder came to."""
    for run in results.runs(folder):
        metrics, _ = series(run.folder)
        own = results.overrides(run.folder) or {}
        if run.status == results.FINISHED and "eval/return_mean" in metrics:
            returns, scores = ([*metrics.get(f"eval/{one}", {}).values()] for one in ("return_mean", SCORE))
            yield {
                "dataset": dataset,
                "kind": kind,
                "setting": name,
                "value": float(own[name]),
                "seed": int(own["seed"]),
                "return": statistics.mean(returns[-LAST:]),
                "returns": returns,
                "scores": scores,
                "end": {metric: list(values.values())[-1] for metric, values in metrics.items()},
            }


def random_return(found: Sequence[Row]) -> float | None:
    """The return whose normalised score is 0, which is linear in the return; None without scores."""
    points = sorted(point for row in found for point in zip(row["returns"], row["scores"], strict=False))
    if not points or points[0] == points[-1]:
        return None
    (low, low_score), (high, high_score) = points[0], points[-1]
    return float(low - low_score * (high - low) / (high_score - low_score))


def table(found: Sequence[Row]) -> str:
    """A line a setting: on each data set mean and range of its returns and its share of the best beta."""
    datasets = list(dict.fromkeys(row["dataset"] for row in found))
    settings = list(dict.fromkeys((row["kind"], row["setting"], row["value"]) for row in found))
    cells: dict[Any, dict[str, list[float]]] = {setting: {} for setting in settings}
    for row in found:
        cells[row["kind"], row["setting"], row["value"]].setdefault(row["dataset"], []).append(row["return"])
    ends = {}
    for dataset in datasets:
        grid = [statistics.mean(cell[dataset]) for key, cell in cells.items() if key[0] in GRIDS and dataset in cell]
        worst = random_return([row for row in found if row["dataset"] == dataset])
        ends[dataset] = (min(grid) if worst is None else worst, max(grid)) if grid else (0.0, 0.0)
    lines = [f"| setting | {' | '.join(datasets)} | least share |", "|---" * (len(datasets) + 2) + "|"]
    for (kind, name, value), cell in cells.items():
        words, shares = [f"{kind} {name.rpartition('.')[2]}={value:g}"], []
        for dataset in datasets:
            worst, best = ends[dataset]
            if dataset not in cell:
                words.append("")
                continue
            mean = statistics.mean(cell[dataset])
            # Where all of a grid have the same return, only that is as good.
            shares.append((mean - worst) / (best - worst) if best > worst else float(mean >= best))
            words.append(f"{mean:.4g} ({min(cell[dataset]):.4g} to {max(cell[dataset]):.4g}), {shares[-1]:.2f}")
        words.append(f"{min(shares):.2f}" if len(shares) == len(datasets) else "")
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", default=list(BUILT_IN), help="built-in names or Minari ids")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/temperature"))
    parser.add_argument("--updates", type=int, default=6_000)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--betas", type=float, nargs="+", default=[0.05, 0.1, 0.3, 1.0, 3.0])
    parser.add_argument("--targets", type=float, nargs="*", default=[0.37])
    parser.add_argument("--epsilons", type=float, nargs="*", default=[0.5])
    parser.add_argument("--sigmoid-betas", type=float, nargs="*", default=[0.1])
    parser.add_argument("--top-percents", type=float, nargs="*", default=[30.0])
    parser.add_argument("--override", action="append", default=[], help="of every run, such as threads=1")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    common = [
        "agent=awr", "env=from_dataset", "logger=jsonl", f"seed={','.join(map(str, range(options.seeds)))}",
        f"network.hidden={json.dumps(options.hidden, separators=(',', ':'))}", f"trainer.updates={options.updates}",
        f"trainer.eval_interval={max(1, options.updates // 10)}", *options.override,
    ]  # fmt: skip
    found: list[Row] = []
    for dataset in options.datasets:
        data = [f"dataset={dataset}"] if dataset in BUILT_IN else ["dataset=minari", f"dataset.id={dataset}"]
        data += NEEDS.get(dataset, [])
        for kind, own, name, values in kinds(options):
            if not values:
                continue
            swept = f"{name}={','.join(map(str, values))}"
            place = options.out / dataset.replace("/", "_") / kind
            folder = train(place, [*data, *common, *own, swept], len(values) * options.seeds)
            found += rows(folder, dataset, kind, name)
            # After each kind: the next one may take an hour.
            (options.out / "temperature.json").write_text(json.dumps(found, indent=1) + "\n")
            (options.out / "temperature.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
