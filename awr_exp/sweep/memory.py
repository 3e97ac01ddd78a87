"""The configurations of a sweep's jobs, each composed once, and most of them from that of another job."""

import pickle
from collections.abc import Sequence
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from awr_exp import run_folder


class Memory:
    """A config loader that does in milliseconds what takes Hydra tenths of a second, for all jobs but the first.

    Jobs whose overrides name the same settings differ in the values of these alone, unless a value chooses a yaml file:
    then all of them are composed by Hydra.
    """

    def __init__(self, loader: ConfigLoader) -> None:
        self.loader = loader
        # Pickled, for that is copied in a quarter of the time.
        self.composed: dict[tuple[str, ...], bytes] = {}
        """The settled configuration of each job, by its overrides."""
        self.first: dict[tuple[str, ...], bytes] = {}
        """That which Hydra composed for the first of the jobs that are alike, by what they have in common."""
        self.groups: dict[str, bool] = {}
        """Whether names are of groups of yaml files."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key not in self.composed:
            cfg = self._load(master_config, sweep_overrides)
            run_folder.settle(cfg)
            self.composed[key] = pickle.dumps(cfg)
        return self._again(self.composed[key])

    def _again(self, pickled: bytes) -> DictConfig:
        cfg: DictConfig = pickle.loads(pickled)
        return cfg

    def _load(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(overrides)
        plain = [self._is_plain(override) for override in parsed]
        alike = tuple(
            str(one.key_or_group if sets else one.input_line) for one, sets in zip(parsed, plain, strict=True)
        )
        if alike not in self.first:
            cfg = self.loader.load_sweep_config(master, overrides)
            self.first[alike] = pickle.dumps(cfg)
            return cfg
        cfg = self._again(self.first[alike])
        for override, sets in zip(parsed, plain, strict=True):
            if sets:
                OmegaConf.update(cfg, override.key_or_group, override.value(), merge=False)
        _say(cfg, parsed)
        return cfg

    def _is_plain(self, override: Override) -> bool:
        """Whether an override gives a setting that is there a value of its own, and chooses nothing."""
        value, name = override.value(), override.key_or_group
        changes = override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None
        chooses = isinstance(value, dict | list) or name.startswith("hydra") or self._is_group(name)
        return not (changes or chooses)

    def _is_group(self, name: str) -> bool:
        if name not in self.groups:
            self.groups[name] = bool(self.loader.get_group_options(name))
        return self.groups[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __reduce__(self) -> Any:
        # Sent to another process, it need not carry what it remembers.
        return Memory, (self.loader,)


def _say(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Set what a configuration says of the overrides that made it, as Hydra does."""
    own, form = cfg.hydra.overrides, cfg.hydra.job.config.override_dirname
    own.task = [override.input_line for override in overrides]
    cfg.hydra.job.override_dirname = get_overrides_dirname(
        list(overrides), kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
    )
