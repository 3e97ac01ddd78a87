"""The configurations of a sweep's jobs, each composed once, and most of them from that of another job."""

import pickle
from collections.abc import Sequence
from itertools import permutations
from typing import Any

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from awr_exp import run_folder


class Memory:
    """A config loader that does in milliseconds what takes Hydra tenths of a second, for all jobs but the first.

    Jobs whose overrides name the same settings differ in the values of these alone, unless a value chooses a yaml file,
    or overrides get in each other's way: then all of them are composed by Hydra.
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
            return cfg
        return _again(self.composed[key])

    def _load(self, master: DictConfig, overrides: list[str]) -> DictConfig:
        parsed = OverridesParser.create().parse_overrides(overrides)
        chooses = [self._chooses(override, master) for override in parsed]
        alike = tuple(
            str(one.input_line if option or not _is_plain(one) else one.key_or_group)
            for one, option in zip(parsed, chooses, strict=True)
        )
        values = [one for one, option in zip(parsed, chooses, strict=True) if not option]
        if alike in self.first:
            cfg = _again(self.first[alike])
            try:
                for override in filter(_is_plain, values):
                    OmegaConf.update(cfg, override.key_or_group, override.value(), merge=False)
                _say(cfg, parsed)
                return cfg
            except OmegaConfBaseException:
                # Hydra says what is wrong with it.
                pass
        cfg = self.loader.load_sweep_config(master, overrides)
        if _independent(values, cfg):
            self.first[alike] = pickle.dumps(cfg)
        return cfg

    def _chooses(self, override: Override, master: DictConfig) -> bool:
        """Whether an override is of a group of yaml files, or of Hydra itself, rather than of a value."""
        name = override.key_or_group
        if name not in self.groups:
            known = master.hydra
            options = self.loader.get_group_options(name, None, known.job.config_name, list(known.overrides.hydra))
            self.groups[name] = bool(options) or override.is_hydra_override()
        return self.groups[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loader"], name)

    def __reduce__(self) -> Any:
        # Sent to another process, it need not carry what it remembers.
        return Memory, (self.loader,)


def _again(pickled: bytes) -> DictConfig:
    cfg: DictConfig = pickle.loads(pickled)
    return cfg


def _is_plain(override: Override) -> bool:
    """Whether an override gives a setting that is there a value of its own."""
    changes = override.is_add() or override.is_force_add() or override.is_delete() or override.package is not None
    return not (changes or override.is_sweep_override() or isinstance(override.value(), dict | list))


def _independent(values: Sequence[Override], cfg: DictConfig) -> bool:
    """Whether each override has a place of its own in the configuration that came of them, whatever the others say."""
    names = [override.key_or_group for override in values]
    others = [one.key_or_group for one in values if not _is_plain(one)]
    if len({*others}) < len(others) or {*others} & {one.key_or_group for one in values if _is_plain(one)}:
        return False
    if any(one.startswith(f"{other}.") for one, other in permutations(names, 2)):
        return False
    return not any(_leads_elsewhere(cfg, name.split(".")[:-1]) for name in names)


def _leads_elsewhere(cfg: DictConfig, way: Sequence[str]) -> bool:
    """Whether on the way to a setting there is a reference, so that it has another name, too."""
    node: Any = cfg
    for name in way:
        if not OmegaConf.is_dict(node) or OmegaConf.is_interpolation(node, name):
            return True
        node = node._get_node(name)
    return False


def _say(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Set what a configuration says of the overrides that made it, as Hydra does."""
    form, own = cfg.hydra.job.config.override_dirname, [one for one in overrides if not one.is_hydra_override()]
    cfg.hydra.overrides.task = [override.input_line for override in own]
    cfg.hydra.job.override_dirname = get_overrides_dirname(
        own, kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
    )
