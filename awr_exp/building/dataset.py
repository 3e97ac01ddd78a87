"""The data set that a command line chooses, in the words of training and in short ones."""

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from awr_exp import arguments, command, settings
from awr_exp.config import CONF, options
from awr_exp.errors import UserError
from awr_exp.shell import key, override
from awr_exp.vocabulary import near

NO_NAMES = ("minari", "none")
"""Options of the group that are no data set by themselves."""


def chosen(given: list[str], own: Path | None = None) -> dict[str, Any]:
    """The checked configuration of the data set, in the units of its own rewards.

    Raises UserError for what chooses none.
    """
    if own and not own.is_dir():
        raise UserError(f"--config-dir {own} is no folder")
    command.register()
    place = [f"hydra.searchpath=[file://{own.absolute()}]"] if own else []
    overrides = [*place, *_overrides(arguments.understood(given))]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        content = settings.values(compose("config", overrides))
    node: dict[str, Any] = content["dataset"]
    if not node:
        raise UserError("dataset=none is nothing to describe: give id=..., or choose another data set")
    if settings.chunk(node) > 1:
        raise UserError(
            "dataset.action_chunk changes what is learnt from a data set and not what is in it: leave it out"
        )
    asked = {key(one) for one in given}
    usual = {"reward_scale": 1.0, "reward_shift": 0.0}
    return node | {name: value for name, value in usual.items() if name in node and f"dataset.{name}" not in asked}


def _overrides(given: list[str]) -> list[str]:
    """What chooses the data set in the words of training: `id=...` is short for both ways to name one."""
    found = []
    if not given:
        raise UserError("which data set? give id=..., such as id=pendulum_mixed or id=mujoco/hopper/medium-v0")
    for one in given:
        name, _, id = one.partition("=")
        if name == "id":
            found += _named(str(arguments.value(one)) if id else "")
        elif name == "dataset" or name.lstrip("+").startswith("dataset."):
            found.append(one)
        else:
            raise UserError(f"{one} is no setting of a data set: give id=..., dataset=... and dataset.<setting>=...")
    return found


def _named(id: str) -> list[str]:
    """The overrides that choose the data set of this id, or of this name among those that come with awr_exp."""
    known = [one for one in options("dataset") if one not in NO_NAMES]
    if id in known:
        return [f"dataset={id}"]
    if "/" not in id and "-v" not in id:
        raise UserError(
            f"id={id} is no data set: it looks like mujoco/hopper/medium-v0, or is one of {', '.join(known)}"
            f"{near(id, known)}"
        )
    return ["dataset=minari", override("dataset.id", id)]
