"""What a configuration chooses beside what learns: callbacks, loggers, and a judge by episodes that are held out."""

from typing import Any

from awr_exp.building import contracts
from awr_exp.building.build import build
from awr_exp.building.takeover import Found
from awr_exp.training.callbacks import Callback
from awr_exp.training.heldout import HeldOut
from awr_exp.training.logger import Logger, Many
from awr_exp.training.loggers import Jsonl
from awr_exp.training.run import Run

Config = dict[str, Any]


def held_out(config: Config, **parts: Any) -> Any:
    """What judges by episodes that are held out, None where the configuration has it not."""
    node = config.get("holdout")
    if not node:
        return None
    made = build(node, **parts)
    contracts.check_made("holdout", node, made, HeldOut)
    return made


def callbacks(config: Config, group: str = "callback") -> list[Callback]:
    """The callbacks that a configuration chooses, beside those that every trainer has."""
    node, made = config.get(group) or {}, []
    for one in [node] if "_target_" in node else node.values():
        made.append(build(one))
        contracts.check_made(group, one, made[-1], Callback)
    return made


def loggers(run: Run, found: Found | None, own: bool) -> Many:
    """What a run logs to, from its newest checkpoint on, if it has one; own: to all that it has chosen."""
    start: Config = found[1] if found else {"update": 0, "run_id": None}
    steps = start["step"] if start.get("unit") == "environment step" else 0
    # metrics.jsonl is what resume, the curves and every report read: it is always written.
    rows = Jsonl(run.folder, update=start["update"] if found else -1, env_steps=steps)
    others = []
    for name, node in ((run.config.get("logger") or {}) if own else {}).items():
        if name != "jsonl":
            place = {"folder": run.folder, "config": run.config}
            others.append(build(node, **place, update=start["update"], run_id=start["run_id"]))
            contracts.check_made("logger", node, others[-1], Logger)
    return Many([rows, *others])
