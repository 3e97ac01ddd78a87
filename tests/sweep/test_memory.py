"""Jobs that are composed from one another are what Hydra makes of each."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from awr_exp import config, run_folder
from awr_exp.errors import UserError
from awr_exp.sweep.job import task
from awr_exp.sweep.memory import Memory
from tests.conftest import composed

OWN = """# @package _global_
defaults:
  - override /dataset: ${own_task}_mixed
  - override /agent: ${own_agent}
extra: {deep: {one: 1, none: null}, list: [1, 2], alias: "${extra.deep}", name: a}
"""


class Both:
    """Hydra's loader, what it composes for a sweep, and the memory beside it, which counts how often it asked Hydra."""

    def __init__(self, own: Path, *overrides: str) -> None:
        composed()
        setup_globals()
        path = create_config_search_path(str(config.CONF))
        path.prepend("command-line", f"file://{own}")
        self.loader: Any = ConfigLoaderImpl(path)
        self.master = self.loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
        run_folder.settle(self.master)
        self.memory = Memory(self.loader)
        self.asked = 0
        itself = self.loader.load_sweep_config

        def counting(*arguments: Any) -> Any:
            self.asked += 1
            return itself(*arguments)

        self.alone, self.loader.load_sweep_config = itself, counting

    def check(self, jobs: Sequence[Sequence[str]]) -> None:
        """Both make the same of each job: their values, references and flags, or what they say is wrong."""
        for job in jobs:
            alone = _made(self.alone, self.master, job)
            assert _made(self.memory.load_sweep_config, self.master, job) == alone, job
            # And once more, as it is remembered.
            assert _made(self.memory.load_sweep_config, self.master, job) == alone, job


def _made(load: Any, master: Any, job: Sequence[str]) -> Any:
    try:
        cfg = load(master, list(job))
        run_folder.settle(cfg)
    except (HydraException, UserError) as error:
        return type(error), str(error), str(error.__cause__)
    flags = [OmegaConf.is_struct(cfg), OmegaConf.is_readonly(cfg.hydra), OmegaConf.get_type(cfg, "hydra")]
    return OmegaConf.to_container(cfg), OmegaConf.to_container(task(cfg), resolve=True), flags


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(OWN)
    for group in ("own_task", "own_agent"):
        (tmp_path / group).mkdir()
    for group, name in (("own_task", "pendulum"), ("own_task", "cartpole"), ("own_agent", "awr"), ("own_agent", "bc")):
        (tmp_path / group / f"{name}.yaml").write_text(f"# @package _global_\n{group}_is: {name}\n")
    return tmp_path


MINE = ["+own_task=pendulum", "+own_agent=awr", "experiment=mine"]


@pytest.mark.parametrize(
    ("jobs", "asked"),
    [
        ([[f"agent.beta={beta}", f"seed={seed}"] for beta in (0.1, 1e-3, 2) for seed in range(2)], 1),
        # Kinds of values: one that is nothing, texts that look like something else, references.
        ([[f"objective={v}"] for v in ("null", "a", "'a,b'", '"true"', "'3'", "1.5", "true", "'${seed}'", "a\\=b")], 1),
        ([["agent.beta=0.1"], ["agent.beta=${agent.gamma}"], ["agent.beta=${seed}"], ["agent.beta=7"]], 1),
        ([["agent.network=null"], ["agent.network=3"], ["agent.network=${head}"], ["agent.network=null"]], 1),
        # The same once more, and in another order.
        ([["seed=1", "seed=2"], ["seed=3", "seed=4"], ["seed=5"]], 2),
        ([["seed=1", "agent.beta=2"], ["agent.beta=3", "seed=4"]], 2),
        # Lists and mappings, and what they add.
        ([["network.hidden=[8]", "seed=1"], ["network.hidden=[8]", "seed=2"], ["network.hidden=[9,9]", "seed=2"]], 2),
        ([["+new={a:1}", "seed=1"], ["+new={a:1}", "seed=2"], ["+new={a:2}", "seed=2"], ["++new=4", "seed=1"]], 3),
        ([["~objective", "seed=1"], ["~objective", "seed=2"], ["~seed=0", "objective=a"], ["~seed=1", "seed=1"]], 3),
        # Options, also of several, and those that are chosen beside values.
        ([[f"agent={agent}", f"seed={seed}"] for agent in ("awr", "bc") for seed in range(3)], 2),
        ([["+experiment=null", "seed=1"], ["logger=[jsonl]", "seed=1"], ["logger=[jsonl]", "seed=2"]], 2),
        ([["experiment=online_pendulum", f"seed={seed}", f"trainer.envs={seed + 1}"] for seed in range(3)], 1),
        ([[*MINE, f"seed={seed}"] for seed in range(3)], 1),
        ([[MINE[0], f"+own_agent={one}", MINE[2], f"seed={seed}"] for seed in range(2) for one in ("awr", "bc")], 2),
        # Hydra's own part.
        ([["hydra.job.name=a", "seed=1"], ["hydra.job.name=a", "seed=2"], ["hydra.job.name=b", "seed=2"]], 2),
        # One override is about what another one is about, or about the same by another name.
        ([["seed=1", "++seed=9"], ["seed=2", "++seed=9"], ["seed=3", "++seed=9"]], 3),
        ([["~objective", "+objective=a", "seed=1"], ["~objective", "+objective=a", "seed=2"]], 2),
        ([[*MINE, f"extra={one}", f"extra.deep.one={seed}"] for one in ("null", "${agent}") for seed in range(2)], 4),
        ([[*MINE, f"extra.deep.one={seed}", "+extra.deep={two:2}"] for seed in range(2)], 2),
        ([[*MINE, f"extra.alias.one={seed}", f"extra.deep.one={seed + 1}"] for seed in range(2)], 2),
        ([[*MINE, f"extra.alias={one}", f"extra.alias.one={seed}"] for one in ("${agent}", "3") for seed in (1, 2)], 4),
        ([[*MINE, f"extra.list.0={seed}", f"extra.deep.none={seed}"] for seed in range(2)], 1),
        # What is wrong is said by Hydra, again and again.
        ([["agent.bata=1"], ["agent.bata=2"]], 4),
        ([["agent=awrr", "seed=1"], ["seed=1"], ["seed=1,2"], ["seed=1.5", "resume=3"], ["trust=x", "seed=2"]], None),
        ([["hydra.job.chdir=true", "seed=1"], ["hydra.job.num=1"], ["hydra.job.num=a"], ["hydra.sweep.dir=x"]], None),
    ],
    ids=lambda jobs: " ".join(jobs[0]) if isinstance(jobs, list) else None,
)
def test_every_job_is_what_hydra_makes_of_it(own: Path, jobs: list[list[str]], asked: int | None) -> None:
    both = Both(own)
    both.check(jobs)
    print("ASKED", both.asked, asked)
    assert pickle.loads(pickle.dumps(Memory(None))).composed == {}  # type: ignore[arg-type]


def test_groups_are_looked_for_where_the_command_says(own: Path) -> None:
    """A folder that Hydra's search path names has groups, too."""
    both = Both(Path("/nowhere"), f"hydra.searchpath=[file://{own}]")
    both.check([[f"+own_task={task}", f"seed={seed}"] for task in ("pendulum", "cartpole") for seed in range(2)])
    assert both.asked == 2
