"""IQL and AWAC beside those of d3rlpy, an independent implementation, with the same settings on the same file.

python benchmarks/against_d3rlpy.py my/data-v0 [--agents iql awac] [--updates 10000] [--hidden 256 256] [--seeds 3]

It needs `pip install d3rlpy`. Both are evaluated in the environment of the data set, from the same starts, by the mode
of the policy at the end. Ours trains all seeds as members of one model; d3rlpy trains one after the other. The table
has each seed's mean return, and updates a second of all seeds together. What differs: d3rlpy squashes the mean of its
Gaussian by tanh, and fits V and Q in one step of one optimiser. Its own reader of Minari data, `get_minari`, is not
used: it takes the last observation of an episode for the first one of the next, so that what follows belongs to other
actions.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np

from awr_exp import results
from awr_exp.training.evaluate import FIRST_SEED

OURS = {
    "iql": ["agent=iql", "agent.critic_layer_norm=null"],
    "awac": ["agent=awac", "weighting=normalized", "head=gaussian_state_dependent", "trainer.batch_size=1024"],
}
"""The settings of d3rlpy in ours."""


def ours(asked: argparse.Namespace, agent: str, folder: Path) -> tuple[list[float], float]:
    """Mean returns of all seeds, and member-updates a second."""
    command = [
        *OURS[agent],
        "dataset=minari",
        f"dataset.id={asked.id}",
        "agent.ema_decay=0",
        f"network.hidden=[{','.join(map(str, asked.hidden))}]",
        f"seed={','.join(map(str, range(asked.seeds)))}",
        f"trainer.updates={asked.updates}",
        f"trainer.eval_interval={asked.updates}",
        f"trainer.eval_episodes={asked.episodes}",
        "logger=jsonl",
        f"hydra.sweep.dir={folder / agent}",
    ]
    subprocess.run([sys.executable, "-m", "awr_exp.main", "-m", *command], check=True)
    runs = results.runs(folder / agent)
    speed = runs[0].metrics["train/updates_per_second"] * len(runs)
    return [run.metrics["eval/return_mean"] for run in runs], speed


def theirs(asked: argparse.Namespace, agent: str) -> tuple[list[float], float]:
    """The same by d3rlpy."""
    import d3rlpy

    recorded = minari.load_dataset(asked.id)
    space, episodes = recorded.action_space, list(recorded)
    assert isinstance(space, gymnasium.spaces.Box)
    dataset = d3rlpy.dataset.MDPDataset(
        observations=np.concatenate([np.asarray(episode.observations)[:-1] for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        terminals=np.concatenate([episode.terminations for episode in episodes]),
        timeouts=np.concatenate([episode.truncations & ~episode.terminations for episode in episodes]),
    )
    shared: dict[str, Any] = {
        "observation_scaler": d3rlpy.preprocessing.StandardObservationScaler(),
        "action_scaler": d3rlpy.preprocessing.MinMaxActionScaler(minimum=space.low, maximum=space.high),
        "actor_encoder_factory": d3rlpy.models.VectorEncoderFactory(list(asked.hidden)),
        "critic_encoder_factory": d3rlpy.models.VectorEncoderFactory(list(asked.hidden)),
    }
    if agent == "iql":
        shared["value_encoder_factory"] = shared["critic_encoder_factory"]
    config = {"iql": d3rlpy.algos.IQLConfig, "awac": d3rlpy.algos.AWACConfig}[agent](**shared)
    found, seconds = [], 0.0
    for seed in range(asked.seeds):
        d3rlpy.seed(seed)
        learner = config.create(device="cpu:0")
        begun = time.perf_counter()
        silent: dict[str, Any] = {"logger_adapter": d3rlpy.logging.NoopAdapterFactory(), "show_progress": False}
        learner.fit(dataset, n_steps=asked.updates, n_steps_per_epoch=asked.updates, **silent)
        seconds += time.perf_counter() - begun
        found.append(played(learner, asked))
    return found, asked.seeds * asked.updates / seconds


def played(learner: Any, asked: argparse.Namespace) -> float:
    """The mean return of the policy's mode."""
    env, returns = minari.load_dataset(asked.id).recover_environment(eval_env=True), []
    for episode in range(asked.episodes):
        (obs, _), total, over = env.reset(seed=FIRST_SEED + episode), 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(learner.predict(np.asarray(obs, np.float32)[None])[0])
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("id", help="of a Minari data set of this machine")
    parser.add_argument("--agents", nargs="+", default=list(OURS))
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 256])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("outputs/against_d3rlpy"))
    asked = parser.parse_args()
    lines = ["| agent | awr_exp | updates/s | d3rlpy | updates/s |", "|---|---|---|---|---|"]
    for agent in asked.agents:
        both = ours(asked, agent, asked.folder / asked.id.replace("/", "_")), theirs(asked, agent)
        cells = [f"{', '.join(f'{one:.0f}' for one in returns)} | {speed:.0f}" for returns, speed in both]
        lines.append(f"| `{agent}` | {' | '.join(cells)} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
