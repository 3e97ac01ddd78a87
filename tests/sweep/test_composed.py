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

OWN = {
    "config": """
defaults: [agent: awr, task: pendulum, data: pendulum_mixed, _self_, experiment: null]
seed: 0
objective: eval/return_mean
resume: null
trust: []
sweep: {resume: null}
network: {hidden: [8, 8], activation: relu}
extra: {deep: {one: 1, none: null}, list: [1, 2], alias: "${extra.deep}"}
""",
    "agent/awr": "{beta: 0.3, gamma: 0.9, network: '${network}', head: {name: gaussian}}",
    "agent/bc": "{beta: null, network: '${network}'}",
    "task/pendulum": "{name: pendulum}",
    "task/cartpole": "{name: cartpole}",
    "data/pendulum_mixed": "{episodes: 1}",
    "data/cartpole_mixed": "{episodes: 2}",
    # What it chooses depends on what is chosen beside it.
    "experiment/mine": "# @package _global_\ndefaults:\n  - override /data: ${task}_mixed\nextra: {list: [3, 4]}",
}


class Both:
    """Hydra's loader, what it composes for a sweep, and the memory beside it, which counts how often it asked Hydra."""

    def __init__(self, place: Path, *overrides: str) -> None:
        composed()
        setup_globals()
        self.loader: Any = ConfigLoaderImpl(create_config_search_path(str(place)))
        self.master = self.loader.load_configuration("config", list(overrides), RunMode.MULTIRUN)
        run_folder.settle(self.master)
        self.memory, self.asked = Memory(self.loader), 0
        self.alone = self.loader.load_sweep_config

        def counting(*arguments: Any) -> Any:
            self.asked += 1
            return self.alone(*arguments)

        self.loader.load_sweep_config = counting

    def check(self, jobs: Sequence[Sequence[str]]) -> None:
        """Both make the same of each job: its values, references and flags, or what they say is wrong."""
        for job in jobs:
            alone = _made(self.alone, self.master, job)
            assert _made(self.memory.load_sweep_config, self.master, job) == alone, job
        # And once more, as the last one is remembered.
        assert _made(self.memory.load_sweep_config, self.master, job) == alone, job


def _made(load: Any, master: Any, job: Sequence[str]) -> Any:
    try:
        cfg = load(master, list(job))
        run_folder.settle(cfg)
        values = OmegaConf.to_container(cfg), OmegaConf.to_container(task(cfg), resolve=True)
    except (HydraException, UserError) as error:
        return type(error), str(error), str(error.__cause__)
    return *values, OmegaConf.is_struct(cfg), OmegaConf.is_readonly(cfg.hydra), OmegaConf.get_type(cfg, "hydra")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("conf")
    for name, text in OWN.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).with_suffix(".yaml").write_text(text)
    return root


@pytest.mark.long
@pytest.mark.parametrize(
    ("jobs", "asked"),
    [
        # Kinds of values: one that is nothing, texts that look like something else, references.
        (["objective=null", "objective='a,b'", "objective='3'", "objective='${seed}'", "objective=a\\=b"], 1),
        (["agent.beta=0.1", "agent.beta=${agent.gamma}", "agent.beta=1e-3", "agent.beta=7"], 1),
        (["agent.head=null", "agent.head=3", "agent.head=${network}", "agent.head=text"], 1),
        (["extra.list.0=1 extra.deep.none=2", "extra.list.0=3 extra.deep.none=4"], 1),
        # The same once more, and in another order.
        (["seed=1 seed=2", "seed=3 seed=4", "seed=5 agent.beta=1", "agent.beta=2 seed=6"], 3),
        # Lists and mappings, and what is added or taken away.
        (["network.hidden=[8] seed=1", "network.hidden=[8] seed=2", "network.hidden=[9,9,9] seed=2"], 2),
        (["+new={a:1} seed=1", "+new={a:1} seed=2", "++new=4 seed=1", "~objective seed=1", "~objective seed=2"], 3),
        # Options, and what depends on them.
        (["agent=awr seed=1", "agent=awr seed=2", "agent=bc seed=1", "agent=bc seed=2"], 2),
        (["experiment=mine task=pendulum seed=1", "experiment=mine task=pendulum seed=2"], 1),
        (["experiment=mine task=pendulum seed=1", "experiment=mine task=cartpole seed=1"], 2),
        # One override is about what another one is about, or about the same by another name.
        (["seed=1 ++seed=9", "seed=2 ++seed=9"], 2),
        (["extra=null seed=1", "extra=${agent} seed=2", "extra={a:1} seed=3"], None),
        (["extra.alias=${agent} extra.alias.beta=1", "extra.alias=${network} extra.alias.activation=1"], None),
        (["extra.alias.one=1 extra.deep.one=2", "extra.alias.one=3 extra.deep.one=4"], None),
        # Hydra's own part, and what is wrong.
        (["hydra.job.name=a seed=1", "hydra.job.name=a seed=2", "hydra.job.name=b seed=2"], 2),
        (["agent.bata=1", "agent.bata=2", "task=nothing", "seed=1,2", "resume=3"], None),
    ],
)
def test_every_job_is_what_hydra_makes_of_it(own: Path, jobs: list[str], asked: int | None) -> None:
    both = Both(own)
    both.check([job.split() for job in jobs])
    assert asked in (both.asked, None)


def test_jobs_of_our_own_configuration_are_composed_once() -> None:
    both = Both(config.CONF)
    both.check([["agent.beta=0.1", "seed=0"], ["agent.beta=1e-3", "seed=7"]])
    assert both.asked == 1
    empty: Any = None
    assert pickle.loads(pickle.dumps(Memory(empty))).composed == {}


def test_groups_are_looked_for_where_the_command_says(own: Path) -> None:
    """A folder that Hydra's search path names has groups, too."""
    both = Both(config.CONF, f"hydra.searchpath=[file://{own}]")
    both.check([["+data@data=pendulum_mixed", "seed=1"], ["+task=pendulum"], ["+task=cartpole"]])
    assert both.asked == 3
