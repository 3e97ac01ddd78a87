"""Where a policy plays once it is trained: an environment of one's choice, or that of its run."""

import logging
from collections.abc import Mapping
from typing import Any

from awr_exp.building.build import build
from awr_exp.building.task import data_set
from awr_exp.envs import source
from awr_exp.envs.build import MakeEnv
from awr_exp.errors import UserError
from awr_exp.types import DataInfo

log = logging.getLogger(__name__)


def chosen(node: Mapping[str, Any], dataset: Mapping[str, Any] | None = None) -> MakeEnv:
    """What makes the environment of a configuration, whatever the data are. Raises UserError for env=none.

    dataset: of the run whose policy is to play there, which may be used to seeing several observations at once.
    """
    # The vectorised form is for collecting in many at once.
    given = {name: value for name, value in node.items() if name != "vectorized"}
    if stack := source.stack((dataset or {}).get("history", 1)):
        given["wrappers"] = [*given.get("wrappers", ()), *stack]
    made = build(given, data=None, spec=None)
    if made is None:
        raise UserError("env=none is nowhere to play: choose another, such as env=pendulum")
    return made


def of_run(config: Mapping[str, Any]) -> MakeEnv:
    """What makes the environment in which a run of this configuration, its env and dataset, is evaluated."""
    if config["dataset"] and str(config["env"].get("_target_")).endswith("from_dataset"):
        data = data_set(config["dataset"], "cpu")
        return build({"_target_": config["env"]["_target_"]}, data=data.info, spec=data.spec)
    return chosen(config["env"], config["dataset"])


def data_of_run(config: Mapping[str, Any]) -> DataInfo | None:
    """What is known of the data set of a run of this configuration; None, and a warning, where it is not here."""
    try:
        data = data_set(config["dataset"], "cpu")
    except UserError as error:
        log.warning("there are no normalised scores: %s", error)
        return None
    return data and data.info
