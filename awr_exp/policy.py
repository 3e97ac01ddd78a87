"""The policy of a run, to act with: `awr_exp.load(run_folder)`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from awr_exp import settings
from awr_exp.agents.critic import of_critic
from awr_exp.agents.members import AVERAGE
from awr_exp.config import check_trusted
from awr_exp.errors import UserError, first_line
from awr_exp.networks.actions import Q
from awr_exp.networks.mlp import MakeNetwork, size
from awr_exp.networks.policy import Policy
from awr_exp.ranges import Count, check
from awr_exp.surroundings import usual
from awr_exp.trained import Judge, TrainedPolicy
from awr_exp.training import artifacts, checkpoint
from awr_exp.types import Spec


@usual()
def load(
    path: str | Path, which: str = "best", seed: int = 0, trust: Iterable[str] = (), best_of: Count | None = None
) -> TrainedPolicy:
    """The trained policy of a run folder, of a checkpoint file or of a W&B artifact, as a function of observations.

        policy = awr_exp.load("outputs/runs/<date>/<time>")
        action = policy(obs)

    An artifact is named as "wandb:entity/project/model-<id>:v3", and is what logger.wandb.log_model=true uploads.
    Observations and actions are those of the environment itself; see `TrainedPolicy`.
    which: "best" by evaluation (the latest if nothing was evaluated) or "latest"; seed: of sampled actions; trust:
    dotted names of own network or head classes that the checkpoint may call; best_of: how many samples it chooses the
    best from, by its Q; 1: it takes the mode instead; None: as it was evaluated. Raises UserError if there is no
    readable checkpoint, if it asks for code that is neither ours nor trusted, or if it has no Q to choose by.
    """
    path = artifacts.local(path)
    check("best_of", best_of, Count | None)
    if which not in ("best", "latest"):
        raise UserError(f"which is '{which}'; it must be best or latest")
    if path.is_file():
        found: tuple[checkpoint.State, dict[str, Any]] | None = checkpoint.read(path)
    else:
        found = checkpoint.best(path) if which == "best" else checkpoint.latest(path)
    if found is None:
        raise UserError(f"{path} is neither the folder of a run with a checkpoint nor a checkpoint file")
    state, metadata = found
    if missing := [name for name in ("spec", "network", "head") if name not in metadata]:
        raise UserError(f"{path} is no checkpoint of a policy: it does not say its {', '.join(missing)}")
    nodes = {part: metadata[part] for part in ("network", "head")}
    check_trusted(nodes, path, trust)
    try:
        settings.check_ranges(nodes)
        spec = Spec.from_json(metadata["spec"])
        parts = {part: instantiate(node, _convert_="all") for part, node in nodes.items()}
        policy = Policy(spec, **parts, conditioned=metadata.get("conditioned", False))
        count = metadata.get("best_of", 1) if best_of is None else best_of
        critic = of_critic(parts["network"], layer_norm=metadata.get("critic_layer_norm"))
        chooses = judge(spec, critic, state, count) if count > 1 else None
        check_tensors(spec, policy, state)
    except (UserError, InstantiationException, TypeError, ValueError) as error:
        raise UserError(f"the policy of {path} cannot be built: {first_line(error)}") from error
    return TrainedPolicy(spec, policy, state, seed, f"{path}, update {metadata.get('update')}", chooses)


def judge(spec: Spec, network: MakeNetwork, state: checkpoint.State, count: int) -> Judge:
    """The judge that a checkpoint has. Raises UserError where it has none."""
    theta = state.get("q.average")
    if theta is None:
        raise UserError(f"best_of={count} needs a Q to judge actions by, and its agent learns none")
    width = size(Q(spec, network, 1).shapes)
    if theta.dim() != 2 or len(theta) != 1 or not theta.numel() or theta.shape[1] % width or theta.isnan().any():
        raise UserError(f"its 'q.average' should be (1, a multiple of {width}) numbers, found {tuple(theta.shape)}")
    return Judge(Q(spec, network, theta.shape[1] // width), theta, count)


def check_tensors(spec: Spec, policy: Policy, state: checkpoint.State) -> None:
    """Raises UserError where the state of a checkpoint is not that of such a policy."""
    shapes = {"actor.theta": (1, size(policy.shapes))}
    shapes |= {AVERAGE: shapes["actor.theta"]} if AVERAGE in state else {}
    shapes |= {"normalizer.mean": (1, spec.obs_dim), "normalizer.std": (1, spec.obs_dim), "normalizer.limit": (1, 1)}
    for name, shape in shapes.items():
        if name not in state or state[name].shape != shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise UserError(f"its '{name}' should be {shape}, found {found}")
        if state[name].dtype not in (torch.float32, torch.float64) or state[name].isnan().any():
            raise UserError(f"its '{name}' holds what are no numbers")
