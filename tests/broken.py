"""Runs that are broken on purpose: where thresholds of the diagnosis are read from.

`python -m tests.broken` trains them, writes their metrics to tests/broken.json, and prints the table of
docs/diagnosis.md.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from awr_exp import results
from awr_exp.data import builtin
from awr_exp.data.episodes import from_episodes
from awr_exp.data.packing import episode_returns
from awr_exp.data.selection import select
from awr_exp.data.transitions import Transitions
from awr_exp.envs import behaviour
from awr_exp.envs.build import Make
from awr_exp.envs.episode import Act, play
from awr_exp.envs.fleet import InProcess
from awr_exp.math.diagnosis import diagnose, said
from tests.conftest import composed, train

FILE = Path(__file__).with_name("broken.json")
COMMON = ["network.hidden=[64,64]", "trainer.updates=1500", "trainer.eval_episodes=10", "logger=jsonl", "threads=1"]
TASKS = ("pendulum", "cartpole")
EXPERTS = {"pendulum": behaviour.pendulum(0.1), "cartpole": behaviour.cartpole(0.3)}
RANDOM = {"pendulum": behaviour.pendulum_random(), "cartpole": behaviour.cartpole(1.0)}
LAGS = ["agent.value_iters=1", "agent.critic_lr=1e-5"]
ELSEWHERE = "env=gym env.id=tests.broken:"
RUNS: Mapping[str, tuple[list[str], str]] = {
    "healthy": ([], "nothing found"),
    "beta too small": (["agent.beta=0.01"], "beta 0.01 is very small"),
    "beta too large": (["agent.beta=100"], "beta 100 is very large"),
    "the critic lags": (LAGS, "the critic lags behind"),
    "shuffled rewards": (["dataset._target_=tests.broken.{task}_shuffled"], "the critic explains"),
    "an expert's data": (["dataset._target_=tests.broken.{task}_expert"], "the data's episodes are about equally good"),
    "random data": (["dataset._target_=tests.broken.{task}_random"], "even the best tenth"),
    "equal rewards": (["dataset._target_=tests.broken.{task}_equal"], "all rewards are the same"),
    "other dynamics": (["env=gym", "env.id=tests.broken:{task}-heavy-v0"], "of the evaluated steps"),
    "other actions": (["env=gym", "env.id=tests.broken:{task}-flipped-v0"], "of the evaluated steps"),
    "other observations": (["env=gym", "env.id=tests.broken:{task}-permuted-v0"], "of the evaluated steps"),
    "behaviour cloning": (["agent=bc"], "nothing found"),
    "Monte Carlo": (["advantage=monte_carlo"], "nothing found"),
    "one-step targets": (["advantage=td"], "nothing found"),
    "iql": (["agent=iql"], "nothing found"),
}
"""Overrides of each, and how what is said of it begins."""
NEVER = {("cartpole", "shuffled rewards")}
"""Runs that are not broken: all rewards of CartPole are 1."""


def with_rewards(data: Transitions, rewards: torch.Tensor) -> Transitions:
    packed, info = data.packed.clone(), data.info
    data.schema.view(packed, "reward")[data.rows, 0] = rewards
    returns = episode_returns(packed, data.lengths.numpy(), data.spec) / info.reward_unit.scale
    return Transitions(packed, data.lengths, data.spec, replace(info, id=f"{info.id}-x", episode_returns=returns))


def shuffled(task: str, **options: Any) -> Transitions:
    data = mixed(task, **options)
    return with_rewards(data, data.reward[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))])


def equal(task: str, **options: Any) -> Transitions:
    data = mixed(task, **options)
    return with_rewards(data, torch.zeros(len(data)))


def mixed(task: str, **options: Any) -> Transitions:
    data: Transitions = getattr(builtin, f"{task}_mixed")(**options)
    return data


def played(policies: Mapping[str, Act], task: str, reward_scale: float = 1.0, **options: Any) -> Transitions:
    """Episodes of a policy, with the reference scores of the mixed data."""
    like, rng, episodes = mixed(task, **options).info, np.random.default_rng(0), []
    spec = mixed(task, **options).spec
    with closing(InProcess(Make(like.env_spec.id, {}), spec.obs_dim)) as fleet:
        for _ in range(60):
            one = play(fleet, policies[task], int(rng.integers(2**31)), rng)
            seen = np.concatenate([one["obs"], one["next_obs"][-1:]])
            own = {"observations": seen, "actions": one["action"], "rewards": one["reward"]}
            episodes.append(own | {"terminated": one["terminated"][-1]})
    facts = ("env_spec", "eval_env_spec", "ref_min_score", "ref_max_score", "observation_space")
    data = from_episodes(f"{like.id}-x", spec, episodes, **{name: getattr(like, name) for name in facts})
    return select(data, reward_scale=reward_scale)


for _task in TASKS:
    _kinds: dict[str, Any] = {"shuffled": shuffled, "equal": equal}
    _kinds |= {"expert": partial(played, EXPERTS), "random": partial(played, RANDOM)}
    for _kind, _make in _kinds.items():
        globals()[f"{_task}_{_kind}"] = partial(_make, _task)


class Flipped(gymnasium.ActionWrapper):
    """Actions mean their opposite."""

    def action(self, action: Any) -> Any:
        return 1 - action if isinstance(self.action_space, gymnasium.spaces.Discrete) else -action


class Permuted(gymnasium.ObservationWrapper):
    """Observations come in another order."""

    def observation(self, observation: Any) -> Any:
        return np.roll(observation, 1)


def heavy(env: gymnasium.Env) -> gymnasium.Env:
    """Another gravity, or another pole and a weaker motor."""
    task: Any = env.unwrapped
    if "Pendulum" in type(task).__name__:
        task.g = 20.0
    else:
        task.gravity, task.masspole, task.force_mag = 30.0, 1.0, 3.0
    return env


for _task, _id in (("pendulum", "Pendulum-v1"), ("cartpole", "CartPole-v1")):
    for _kind, _change in (("heavy", heavy), ("flipped", Flipped), ("permuted", Permuted)):
        gymnasium.register(
            f"{_task}-{_kind}-v0", lambda base=_id, change=_change, **options: change(gymnasium.make(base, **options))
        )


def of_run(task: str, name: str, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """The last metrics of a run of a name, and what of its configuration they are judged by."""
    overrides = [one.format(task=task) for one in RUNS[name][0]]
    cfg = composed(f"dataset={task}_mixed", *COMMON, *overrides)
    (outcome,) = train([cfg], [folder], examines=True)
    assert outcome.error is None
    config = {name: value for name, value in results.leaves(cfg).items() if name.startswith(("agent.", "weighting."))}
    return {name: float(f"{value:.5g}") for name, value in outcome.metrics.items()}, config


def first(metrics: Mapping[str, float], config: Mapping[str, Any]) -> str:
    """What is said first of a run."""
    return (said(diagnose(metrics, config)) or ["nothing found"])[0]


NUMBERS = {
    "unlike": "steps unlike the data", "V": "squared error of V / variance of A", "explained": "explained variance",
    "best": "score of the data's best tenth", "lead": "lead of the data's best tenth",
    "A / beta": "spread of the advantages / beta", "ess": "effective sample size", "clipped": "clipped weights",
    "dead": "dead weights", "distance": "distance of the policy from the data",
    "samples": "lead of samples over the mode", "fall": "fall from the best evaluation",
    "policy": "lead over the data's mean return",
}  # fmt: skip
"""The findings by the heads of the table."""


def table(found: Mapping[str, Any]) -> str:
    """The runs in Markdown, Pendulum's number before CartPole's."""
    lines = [["run", *NUMBERS], ["---"] * (len(NUMBERS) + 1)]
    for name in RUNS:
        runs = [diagnose(**found[f"{task}, {name}"]) if f"{task}, {name}" in found else [] for task in TASKS]
        own = [{one.name: one for one in run} for run in runs]
        cells = [[_shown(run[title].value) if title in run else "–" for run in own] for title in NUMBERS.values()]
        lines.append([name, *(" / ".join(cell) if set(cell) != {"–"} else "" for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 10 else f"{number:.2g}"


if __name__ == "__main__":
    found: dict[str, dict[str, Any]] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        os.environ["MINARI_DATASETS_PATH"] = f"{root}/minari"
        for task in TASKS:
            for name in RUNS:
                if (task, name) not in NEVER:
                    metrics, config = of_run(task, name, Path(root, task, name))
                    found[f"{task}, {name}"] = {"metrics": metrics, "config": config}
                    print(f"{task}, {name}: {first(metrics, config)[:60]}", flush=True)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")
    print(table(found))
