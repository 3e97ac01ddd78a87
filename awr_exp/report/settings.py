"""In what runs differ: which values of their configurations are settings, which are the task, and their names."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeGuard

from awr_exp import results

Setting = tuple[tuple[str, Any], ...]
"""Names and values, in a fixed order."""
Config = Mapping[str, Any]
"""Dotted names to plain values."""

BETA = "agent.beta"
GOALS = {"trainer.updates": "updates", "trainer.env_steps": "environment steps"}
"""How long a run is, and in what: not in what two methods differ, but where they can be compared."""
BOOKKEEPING = {
    *("seed", "resume", "trust", "objective", "device", "threads"),
    *("logger", "sweep", "recorder", "baseline", "evaluate", "hydra"),
}
"""Groups that do not make two runs different methods."""
HOUSEKEEPING = {"report_interval", "checkpoint_interval", "compile", "workers", "vectorized", "download"}
"""Settings of trainers, environments and data sets that do not, either; nor do those of evaluation."""
LONGEST = 36
"""Characters of a setting that a legend, or a sentence, has room for."""
NUMBERED = "setting "
SHOWN = 80
"""Characters of a value."""


def flat(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Flatten a configuration to dotted names; a part has the name of its class, and references are followed."""
    values = {
        name.removesuffix("._target_"): _plain(value)
        for name, value in results.leaves(content).items()
        if name.rpartition(".")[2] not in ("_partial_", "_convert_", "_recursive_")
    }
    return {name: _followed(value, values) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """What can be compared and shown: a number, a flag, None or a text."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    text = str(value)
    return text.rpartition(".")[2] if text.startswith("awr_exp.") else text


def _followed(value: Any, values: Config) -> Any:
    """Where `${name}` leads to, if that is a value."""
    for _ in range(9):
        reference = re.fullmatch(r"\$\{([\w.]+)\}", value) if isinstance(value, str) else None
        if not reference or reference[1] not in values:
            return value
        value = values[reference[1]]
    return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can be counted with, and drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < results.LARGEST


def tasks(configs: Sequence[Config]) -> list[str]:
    """What each run learns from and is judged in, with options of its environment that are its own or that differ."""
    envs = [
        {name: value for name, value in config.items() if name.startswith("env.") and not _is_bookkeeping(name)}
        for config in configs
    ]
    differing = set(_differing(envs))
    return [
        _task(config, {n: v for n, v in env.items() if n in differing or n.startswith("env.kwargs.")})
        for config, env in zip(configs, envs, strict=True)
    ]


def _task(config: Config, options: Config) -> str:
    data, env = config.get("dataset.id") or config.get("dataset"), config.get("env.id")
    own = config.get("env")
    env = env or (own if own not in (None, "from_dataset", "gym", "none") else None)
    words = [f"{data} in {env}" if data and env else str(data or env or "unknown task")]
    shown = [f"{name.rpartition('.')[2]}={_text(value)}" for name, value in options.items() if name != "env.id"]
    return " ".join([*words, *shown])


def _differing(configs: Sequence[Config]) -> list[str]:
    """The names whose values differ between those that have them: another agent has other settings anyway."""
    values: dict[str, set[tuple[bool, Any]]] = {}
    for config in configs:
        for name, value in config.items():
            # 1 is 1.0, but not true.
            values.setdefault(name, set()).add((isinstance(value, bool), value))
    return [name for name, found in values.items() if len(found) > 1]


def named(config: Config, options: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with parts by the options that were chosen, each said once: others refer to it."""

    def refers(name: str) -> bool:
        part = name.rpartition(".")[2]
        return part != name and part in options and config[name] == config.get(part)

    # An experiment is no part of the configuration, but what it consists of.
    chosen = {group: option for group, option in options.items() if group in config or group == "experiment"}
    own = {name: value for name, value in config.items() if not refers(name)}
    return own | {group: option for group, option in chosen.items() if is_setting(group)}


def varied(configs: Sequence[Config], given: Collection[str] | None = None) -> list[str]:
    """The settings in which the methods of one task differ.

    given: all that anybody gave, None where that is not known. What was not given, and follows from what was, such as
    the default beta of an agent, is left out; the rest comes last.
    """
    seeds = {str(config.get("seed")) for config in configs}
    begins = {(str(config.get("seed")), str(config.get("resume_policy"))) for config in configs}
    # Where each seed begins with a policy of its own, these differ as the seeds do.
    others = {"resume_policy"} if len(begins) == len(seeds) else set()
    names = [name for name in _differing(configs) if is_setting(name) and name not in others]
    if given is None:
        return names
    chosen = [name for name in names if name in given]
    return chosen + [name for name in names if name not in given and not _follows(name, chosen, configs)]


def _follows(name: str, chosen: Sequence[str], configs: Sequence[Config]) -> bool:
    """Whether all that have the same in what was chosen have the same here."""
    of_choice: dict[str, set[str]] = {}
    for config in configs:
        key = repr([config.get(one) for one in chosen])
        of_choice.setdefault(key, set()).add(repr((name in config, config.get(name))))
    return all(len(values) == 1 for values in of_choice.values())


def is_setting(name: str) -> bool:
    """Whether it can make two runs of a task different methods."""
    of_task = name in ("dataset", "dataset.id", "env") or name.startswith("env.")
    return not (of_task or name in GOALS or _is_bookkeeping(name))


def _is_bookkeeping(name: str) -> bool:
    group, last = name.partition(".")[0], name.rpartition(".")[2]
    mine = group in ("trainer", "env", "dataset")
    return group in BOOKKEEPING or (mine and (last in HOUSEKEEPING or last.startswith("eval_")))


def of(config: Config, names: Sequence[str]) -> Setting:
    """The values of these settings, as far as a run has them."""
    return tuple((name, config[name]) for name in names if name in config)


def labels(settings: Sequence[Setting]) -> dict[Setting, str]:
    """A short name of each: what it consists of, or where that is long, or not unique, its number."""
    names = {setting: name(setting) for setting in settings}
    if len(set(names.values())) == len(names) and max(map(len, names.values()), default=0) <= LONGEST:
        return names
    return {setting: f"{NUMBERED}{number}" for number, setting in enumerate(settings, 1)}


def is_numbered(label: str) -> bool:
    """Whether a label is a number, which says nothing of what its setting is."""
    return label.startswith(NUMBERED)


def name(setting: Setting, full: bool = False) -> str:
    """A setting in words, such as "beta=0.3 network.hidden=[64, 64]"; full: with all digits."""
    return " ".join(f"{key.removeprefix('agent.')}={_text(value, full)}" for key, value in setting) or "all runs"


def order(setting: Setting) -> list[tuple[int, float, str]]:
    """The key by which settings are sorted: numbers come first, by their size."""
    return [(0, float(value), "") if is_number(value) else (1, 0.0, str(value)) for _, value in setting]


def _text(value: Any, full: bool = False) -> str:
    text = f"{value:.4g}" if isinstance(value, float) and not full and len(str(value)) > 7 else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
