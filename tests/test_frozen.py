"""Whole runs report what they reported when tests/frozen.json was written, up to rounding.

A change that draws other random numbers, or the same in another order, must say so and write the file anew:
`python -m tests.test_frozen`. Runs are short, so that other processors' rounding does not grow into other numbers.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest

from awr_exp.training.rows import read
from tests.conftest import composed, train

FILE = Path(__file__).with_name("frozen.json")
COMMON = ["logger=jsonl", "trainer.eval_episodes=1", "network.hidden=[16,16]", "trainer.batch_size=32"]
OFFLINE = [
    *COMMON, "trainer.updates=40", "trainer.refresh_interval=15", "trainer.report_interval=10",
    "trainer.eval_interval=20", "trainer.checkpoint_interval=20", "dataset.max_transitions=2000",
]  # fmt: skip
STEPS = [
    *COMMON, "trainer.env_steps=384", "trainer.envs=4", "trainer.report_interval=128", "trainer.eval_interval=192",
    "trainer.checkpoint_interval=192", "trainer.replay_size=256", "trainer.compile=false",
]  # fmt: skip
PHASED = [
    "schedule.samples_per_iteration=128", "schedule.critic_steps=4", "schedule.actor_steps=8",
    "schedule.normalizer_samples=256",
]  # fmt: skip
ONLINE = ["trainer=online", "agent.actor_lr=3e-4", *STEPS]
NO_AVERAGE = "agent.ema_decay=0"
INTERLEAVED = ["schedule=interleaved", "schedule.learning_starts=128", "schedule.update_interval=16"]
FINETUNE = ["trainer=finetune", "dataset.max_transitions=2000", *STEPS, *PHASED]
RUNS: dict[str, list[list[str]]] = {
    "offline": [OFFLINE],
    "offline, discrete": [[*OFFLINE, "dataset=cartpole_mixed", "advantage=gae"]],
    "offline, one step": [[*OFFLINE, "advantage=td", "head=tanh_gaussian", "optimizer=momentum"]],
    "behaviour cloning": [[*OFFLINE, "agent=bc"]],
    "reward-weighted regression": [[*OFFLINE, "agent=rwr"]],
    "sweep of four": [[*OFFLINE, f"agent.beta={beta}", f"seed={seed}"] for beta in (0.1, 1.0) for seed in (3, 4)],
    "online, phased": [[*ONLINE, "env=cartpole", NO_AVERAGE, *PHASED]],
    "online, continuous, annealed": [
        [*ONLINE, "env=pendulum", *PHASED, "head=gaussian_annealed", "agent.ema_decay=0.9"]
    ],
    "online, interleaved": [[*ONLINE, "env=cartpole", NO_AVERAGE, *INTERLEAVED]],
    "online, interleaved, whole episodes": [
        [*ONLINE, "env=pendulum", NO_AVERAGE, *INTERLEAVED, "advantage=td_lambda", "schedule.refresh_interval=64"]
    ],
    "online sweep of two": [[*ONLINE, "env=cartpole", NO_AVERAGE, *PHASED, f"seed={seed}"] for seed in (0, 1)],
    "finetune": [
        [*FINETUNE, "trainer.pretrain.updates=20", "trainer.pretrain.batch_size=32", f"agent.beta={beta}"]
        for beta in (0.3, 1.0)
    ],
}


def reported(cfgs: list[list[str]], folder: Path) -> list[list[list[float | str]]]:
    """[update, env_steps, name, value] of every row of each run."""
    folders = [folder / str(number) for number in range(len(cfgs))]
    outcomes = train([composed(*cfg) for cfg in cfgs], folders)
    assert [outcome.error for outcome in outcomes] == [None] * len(cfgs)
    return [
        [
            [row["update"], row["env_steps"], row["name"], row["value"]]
            for row in read(one)
            # What is measured when all is over changes nothing of it, and the tests' data sets have other references.
            if "per_second" not in row["name"] and not row["name"].startswith(("diagnosis/", "eval/normalized_score"))
        ]
        for one in folders
    ]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if place else ()) for place, name in enumerate(RUNS)]
)
def test_a_run_reports_what_it_did(name: str, datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(datasets))
    frozen = json.loads(FILE.read_text())[name]
    for now, before in zip(reported(RUNS[name], tmp_path), frozen, strict=True):
        assert [row[:3] for row in now] == [row[:3] for row in before]
        for (*place, value), (*_, expected) in zip(now, before, strict=True):
            assert value == pytest.approx(expected, rel=2e-3, abs=2e-5), place


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        os.environ["MINARI_DATASETS_PATH"] = f"{root}/minari"
        found = {name: reported(cfgs, Path(root, str(number))) for number, (name, cfgs) in enumerate(RUNS.items())}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(rows)}" for name, rows in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")
