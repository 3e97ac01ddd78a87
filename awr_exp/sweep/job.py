"""A job of a sweep before it trains: its configuration, and its folder, made the way that Hydra does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, env_override
from hydra.errors import CompactHydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper

from awr_exp import run_folder
from awr_exp.errors import unwritable


def composed(context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    """The configuration of a sweep's job, Hydra's part included, which `HydraConfig` has from now on."""
    cfg = context.config_loader.load_sweep_config(config, list(overrides))
    with read_write(cfg.hydra), open_dict(cfg):
        cfg.hydra.job.id, cfg.hydra.job.num = str(number), number
    # As it is: its own `set_config` makes a copy of Hydra's part, which takes longer than all else here.
    HydraConfig.instance().cfg = cfg  # type: ignore[assignment]
    return cfg


def place(cfg: DictConfig) -> Path:
    """The folder of a job."""
    return Path(cfg.hydra.sweep.dir, cfg.hydra.sweep.subdir)


def task(cfg: DictConfig) -> DictConfig:
    """A configuration without Hydra's part, which has the other parts of the whole one and no copies of them."""
    parts = {str(name): node for name, node in cfg.items_ex(resolve=False) if name != "hydra"}
    return DictConfig(parts, flags={"no_deepcopy_set_nodes": True})


@dataclass
class Job:
    """A job whose folder is there, with its `.hydra/`; `result` is what Hydra gets back in the end.

    name: what sets it apart; content: its checked configuration, empty if the job has failed.
    """

    config: DictConfig
    result: JobReturn
    folder: Path
    name: str
    content: dict[str, Any] = field(default_factory=dict)

    def finish(self, metrics: Mapping[str, float]) -> None:
        self.result.return_value = metrics.get(self.content["objective"])
        self.result.status = JobStatus.COMPLETED

    def fail(self, error: Exception) -> None:
        # Of this kind Hydra prints the message alone; a traceback, if any, is in the job's log.
        self.result.return_value = CompactHydraException(f"error: {error}")
        self.result.status = JobStatus.FAILED


def begun(cfg: DictConfig, name: str, check: Callable[[DictConfig], dict[str, Any]]) -> Job:
    """A job of a composed configuration, with its folder; check: makes its content of its configuration, or raises."""
    folder, own = place(cfg), task(cfg)
    with read_write(cfg.hydra), open_dict(cfg.hydra):
        cfg.hydra.runtime.output_dir = str(folder.absolute())
    result = JobReturn(list(cfg.hydra.overrides.task), own, cfg, str(Path.cwd()), cfg.hydra.job.name)
    job = Job(cfg, result, folder, name)
    try:
        _keep(cfg, own)
        with env_override(cfg.hydra.job.env_set):
            job.content = check(own)
    except OSError as error:
        job.fail(unwritable(folder, error))
    except Exception as error:
        job.fail(error)
    return job


def _keep(cfg: DictConfig, own: DictConfig) -> None:
    """Write what a run was started with. Raises OSError."""
    where = Path(cfg.hydra.runtime.output_dir, run_folder.HYDRA)
    where.mkdir(parents=True, exist_ok=True)
    hydra: Any = OmegaConf.to_container(cfg.hydra, enum_to_str=True)
    kept = {
        "config": OmegaConf.to_container(own, enum_to_str=True),
        "hydra": {"hydra": hydra},
        "overrides": hydra["overrides"]["task"],
    }
    for name, content in kept.items():
        text = yaml.dump(content, Dumper=_dumper(), default_flow_style=False, allow_unicode=True, sort_keys=False)
        (where / f"{name}.yaml").write_text(text, encoding="utf-8")


@cache
def _dumper() -> Any:
    """Writes as OmegaConf does, but for where long lines are broken, in a fifth of the time where there is one in C."""

    class Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
        pass

    Dumper.add_representer(str, get_omega_conf_dumper().str_representer)
    return Dumper
