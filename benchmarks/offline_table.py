"""The family on data sets: normalised scores by default and with the best beta of a grid, and how fast it trains.

python benchmarks/offline_table.py [--sets pendulum_mixed my/data-v0 ...] [--agents iql awr ...] [--updates 15000] ...

A set is one of ours by its name, or the id of any Minari data set of this machine; `--download` fetches those of the
hub. Each agent is trained on three seeds with its default settings, and where it has a temperature again on a grid of
five betas around the default one; all of an agent's runs on a set are members of one model. A score is the mean of a
run's last three evaluations, in percent from the set's random reference to its expert one; a set that has none has
returns instead. The table has the mean over
seeds and the lowest and the highest one; below are member-updates a second. What was trained before is not trained
again, so a table that is stopped goes on. Rows are kept as JSON beside it.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from temperature import LAST, SCORE
from temperature import train as multirun

from awr_exp import config, results, vocabulary
from awr_exp.training.rows import series

AGENTS = ["bc", "bc_top", "rwr", "awr", "marwil", "iql", "awac", "crr", "td3_awr", "td3_bc", "rebrac", "cql"]
SETS = ["pendulum_mixed", "cartpole_mixed", "two_ways"]
GRID = (0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass
class Row:
    """One run: its data set, agent, beta (None: by default), score (None without references), and member-updates/s."""

    data: str
    agent: str
    beta: float | None
    seed: int
    score: float | None
    return_mean: float
    speed: float


def default_beta(agent: str) -> float | None:
    """The beta that an agent's yaml has, None where it has none."""
    (content,) = (one.content for one in vocabulary.options(config.CONF) if (one.group, one.name) == ("agent", agent))
    return content.get("agent", content).get("beta")


def layers(agent: str, hidden: Sequence[int]) -> str:
    """The override of the network's widths; agents of three layers keep three."""
    text = (config.CONF / "agent" / f"{agent}.yaml").read_text()
    deep = any(f"/network: {name}" in text for name in ("mlp_deep", "mlp_three"))
    return f"network.hidden=[{','.join(map(str, [*hidden, hidden[-1]] if deep else hidden))}]"


def train(data: str, agents: Sequence[str], asked: argparse.Namespace) -> list[Row]:
    """Train agents on a data set, unless that was done before; a row for each run that was evaluated."""
    chosen = [f"dataset={data}"]
    if data not in config.options("dataset"):
        chosen = ["dataset=minari", f"dataset.id={data}", f"dataset.download={str(asked.download).lower()}"]
    chosen += [
        f"seed={','.join(map(str, range(asked.seeds)))}",
        f"trainer.updates={asked.updates}",
        f"trainer.eval_interval={max(1, asked.updates // 10)}",
        f"trainer.eval_episodes={asked.episodes}",
        "logger=jsonl",
    ]
    found = []
    for agent in agents:
        beta = default_beta(agent)
        betas = [beta * factor for factor in asked.grid if factor != 1] if beta else []
        for name, grid in {"default": [], **({"grid": betas} if betas else {})}.items():
            place = asked.folder / data.replace("/", "_") / agent / name
            swept = [f"agent.beta={','.join(f'{one:g}' for one in grid)}"] if grid else []
            command = [*chosen, f"agent={agent}", layers(agent, asked.hidden), *swept]
            folder = multirun(place, [*command, *asked.overrides], asked.seeds * max(1, len(grid)))
            found += list(rows(folder, data, agent))
    return found


def rows(place: Path, data: str, agent: str) -> Iterable[Row]:
    runs = [run for run in results.runs(place) if run.status == results.FINISHED]
    for run in runs:
        chosen = results.overrides(run.folder) or {}
        metrics, _ = series(run.folder)
        seen = [[*metrics.get(f"eval/{name}", {}).values()] for name in (SCORE, "return_mean")]
        if seen[1]:
            score, reached = (float(np.mean(values[-LAST:])) if values else None for values in seen)
            assert reached is not None
            beta = float(chosen["agent.beta"]) if "agent.beta" in chosen else None
            speed = run.metrics.get("train/updates_per_second", np.nan) * len(runs)
            yield Row(data, agent, beta, int(chosen.get("seed", 0)), score, reached, speed)


def table(found: Sequence[Row]) -> str:
    """Markdown: a line for each agent, a column for each set."""
    sets, agents = (list(dict.fromkeys(getattr(row, name) for row in found)) for name in ("data", "agent"))
    lines = ["| agent | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for agent in agents:
        cells = [cell([row for row in found if (row.data, row.agent) == (data, agent)]) for data in sets]
        lines.append(f"| `{agent}` | " + " | ".join(cells) + " |")
    lines += ["", "| updates/s | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for agent in agents:
        speeds = [[row.speed for row in found if (row.data, row.agent) == (data, agent)] for data in sets]
        lines.append(f"| `{agent}` | " + " | ".join(f"{np.median(own):.0f}" if own else "" for own in speeds) + " |")
    return "\n".join(lines) + "\n"


def cell(own: Sequence[Row]) -> str:
    """The default's score, and the best beta's where there is a grid, in percent; returns where there are no scores."""
    by_beta: dict[float | None, list[float]] = {}
    for row in own:
        by_beta.setdefault(row.beta, []).append(row.return_mean if row.score is None else 100 * row.score)
    if not by_beta:
        return ""
    told = {beta: f"{np.mean(s):.1f} ({min(s):.1f} to {max(s):.1f})" for beta, s in by_beta.items()}
    best = max(by_beta, key=lambda beta: float(np.mean(by_beta[beta])))
    text = told.get(None, "")
    return text if best is None else f"{text}, best {told[best]} at beta {best:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, help="names of ours, or ids of Minari data sets")
    parser.add_argument("--agents", nargs="+", default=AGENTS, choices=config.options("agent"), metavar="AGENT")
    parser.add_argument("--updates", type=int, default=15_000)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--grid", type=float, nargs="+", default=GRID, help="factors of each agent's default beta")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--download", action="store_true", help="fetch data sets of the hub")
    parser.add_argument("--folder", type=Path, default=Path("outputs/offline_table"))
    parser.add_argument("overrides", nargs="*", help="of all runs, after --")
    asked = parser.parse_args()
    found: list[Row] = []
    for data in asked.sets:
        own = train(data, asked.agents, asked)
        if not own:
            print(f"{data} has no results: see above why", file=sys.stderr)
            continue
        found += own
        (asked.folder / "rows.json").write_text(json.dumps([asdict(row) for row in found], indent=1))
        (asked.folder / "table.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
