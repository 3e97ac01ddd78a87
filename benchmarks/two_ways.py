"""Four heads on a task with two ways that are equally good: how each steers at first, and where it comes.

python benchmarks/two_ways.py [folder of the sweep, if it was trained before]
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch

import awr_exp
from awr_exp import results
from awr_exp.data.builtin import two_ways
from awr_exp.envs.two_ways import GOAL, HARBOUR, ROCK, START, begun, moved

SWEEP = Path("outputs/sweeps/two_ways")
HEADS = {"gaussian": "one Gaussian", "mixture": "mixture", "flow": "flow", "categorical_bins": "bins"}
COMMAND = [
    "dataset=two_ways", f"head={','.join(HEADS)}", "seed=0,1,2", "network.hidden=[64,64]", "logger=jsonl",
    f"hydra.sweep.dir={SWEEP}",
]  # fmt: skip
PICTURE = Path(__file__).parents[1] / "docs" / "two_ways.png"
EPISODES = 40


def paths(act: Callable[[Any], Any]) -> list[np.ndarray]:
    """The places [steps + 1, 2] of some episodes, played all in step."""
    places = begun(np.random.default_rng(0), EPISODES)
    found, going = [[place] for place in places], np.ones(EPISODES, np.bool_)
    while going.any():
        places, _, over = moved(places, act(places.astype(np.float32)))
        for number in np.flatnonzero(going):
            found[number].append(places[number])
        going &= ~over
    return [np.array(one) for one in found]


def draw(folder: Path) -> None:
    runs: dict[str, list[Any]] = {}
    for run in results.runs(folder):
        runs.setdefault((results.overrides(run.folder) or {})["head"], []).append(run)
    figure, axes = plt.subplots(2, len(HEADS), figsize=(10, 4.2), height_ratios=(2, 1), constrained_layout=True)
    data = two_ways()
    batch = data.sample(torch.arange(len(data)).unsqueeze(0))
    obs, action = batch.obs[0].numpy(), batch.action[0].numpy()
    for (name, title), above, below in zip(HEADS.items(), *axes, strict=True):
        policy = awr_exp.load(runs[name][0].folder, which="latest")
        above.add_patch(plt.Circle((0, 0), ROCK, color="0.75"))
        above.plot([GOAL, GOAL], [-HARBOUR, HARBOUR], color="C2", linewidth=4)
        above.plot(*obs.T, ".", color="0.6", markersize=1, zorder=0)
        for path in paths(policy):
            above.plot(*path.T, color="C0", linewidth=0.7)
        returns = ", ".join(f"{run.metrics['eval/return_mean']:.2f}" for run in runs[name])
        above.set_title(f"{title}: {returns}", fontsize="medium")
        above.set(xlim=(-1.1, 1.1), ylim=(-1, 1), aspect="equal", xticks=[], yticks=[])
        start, edges = np.array([START, 0], np.float32), np.linspace(-1, 1, 42)
        drawn = policy(np.tile(start, (5_000, 1)), deterministic=False)
        below.hist(action[obs[:, 0] == START].ravel(), edges, density=True, color="0.75")
        below.hist(drawn.ravel(), edges, density=True, histtype="step", color="C0")
        below.axvline(policy(start).item(), color="C1")
        below.set(xlabel="first action", yticks=[])
    figure.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        subprocess.run([sys.executable, "-m", "awr_exp.main", "-m", *COMMAND], check=True)
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else SWEEP)
