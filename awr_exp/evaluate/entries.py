"""What is evaluated: policies of runs, each with the environment that it plays in."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from awr_exp import config, results
from awr_exp.building import place
from awr_exp.envs import fit
from awr_exp.envs.build import MakeEnv, opened
from awr_exp.errors import UserError
from awr_exp.policy import TrainedPolicy, load
from awr_exp.training import checkpoint
from awr_exp.types import DataInfo

AT_ONCE = 20
"""Episodes of a policy that are played together, unless its run was evaluated in more."""
OF_RUN = "env", "dataset", "trainer", "seed"
"""What of a run's configuration is asked for."""


@dataclass(frozen=True)
class Entry:
    """A policy that is evaluated.

    path: of the run or of the checkpoint file, as it was named; facts: the metadata of the checkpoint; env: the id of
    the environment; data: what is known of the data set that it learnt from, if it plays in the environment of its run;
    seed: of its run; at_once: episodes that are played together; key: equal for entries that can play as one.
    """

    path: Path
    policy: TrainedPolicy
    facts: dict[str, Any]
    make_env: MakeEnv
    env: str
    data: DataInfo | None
    seed: int
    at_once: int
    key: str

    @cached_property
    def settings(self) -> dict[str, str]:
        """What its run was started with, by name."""
        return results.overrides(config.owner(self.path)) or {}

    @property
    def film(self) -> Path:
        """Where its film belongs."""
        if self.path.is_file():
            return self.path.with_suffix(".mp4")
        return self.path / "video" / f"evaluation_{self.facts['update']:010d}.mp4"


def entry(path: Path, content: dict[str, Any]) -> Entry:
    """The policy in this place, with an environment that fits it; content: of the command. Raises UserError."""
    file = path if path.is_file() else checkpoint.place(path, content["which"])
    if file is None:
        raise UserError(f"{path} has no checkpoint: nothing was trained there so far")
    facts = checkpoint.read(file, tensors=False)[1]
    policy = load(file, trust=content["trust"], best_of=content["best_of"])
    known = (config.owner(path) / ".hydra").is_dir()
    run = config.saved_values(path, content["trust"], *OF_RUN) if known else dict.fromkeys(OF_RUN)
    own = content.get("env") is None
    if own and not run["env"]:
        raise UserError(f"{path} does not say where it was evaluated: choose where to play, such as env=pendulum")
    try:
        make_env = place.of_run(run) if own else place.chosen(content["env"], run["dataset"])
    except UserError as error:
        raise UserError(f"{path} cannot play: {error}") if own else error from None
    with opened(make_env) as env:
        fit.check_policy(env, str(path), policy.spec)
        id = env.spec.id if env.spec else type(env.unwrapped).__name__
    shape = [facts.get(name) for name in ("spec", "network", "head", "conditioned", "critic_layer_norm")]
    shape += [policy.judge and (policy.judge.count, policy.judge.theta.shape[1])]
    played = max(AT_ONCE, (run["trainer"] or {}).get("eval_episodes") or 0)
    where = [run["env"], run["dataset"]] if own else []
    return Entry(
        path,
        policy,
        facts,
        make_env,
        id,
        place.data_of_run(run) if own else None,
        run["seed"] or 0,
        min(content["episodes"], played),
        json.dumps([shape, where, played], sort_keys=True, default=str),
    )
