"""A trained policy as a function of NumPy observations: `awr_exp.load(run_folder)`."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from numpy.typing import NDArray

from awr_exp import settings
from awr_exp.agents.critic import of_critic
from awr_exp.agents.members import AVERAGE
from awr_exp.config import check_trusted
from awr_exp.errors import UserError, first_line
from awr_exp.layout import described
from awr_exp.math.observations import normalize
from awr_exp.networks.actions import Q
from awr_exp.networks.mlp import MakeNetwork, size
from awr_exp.networks.policy import Policy
from awr_exp.ranges import Count, check
from awr_exp.seeding import normal, numpy_generator
from awr_exp.surroundings import usual
from awr_exp.training import artifacts, checkpoint
from awr_exp.types import Spec


@usual()
def load(
    path: str | Path, which: str = "best", seed: int = 0, trust: Iterable[str] = (), best_of: Count | None = None
) -> "TrainedPolicy":
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
        judge = Judge.of(spec, critic, state, count) if count > 1 else None
        check_tensors(spec, policy, state)
    except (UserError, InstantiationException, TypeError, ValueError) as error:
        raise UserError(f"the policy of {path} cannot be built: {first_line(error)}") from error
    return TrainedPolicy(spec, policy, state, seed, f"{path}, update {metadata.get('update')}", judge)


@dataclass(frozen=True)
class Judge:
    """Which of `count` sampled actions a policy takes: the one that Q, with its parameters theta [1, P], finds best."""

    q: Q
    theta: torch.Tensor
    count: int

    @classmethod
    def of(cls, spec: Spec, network: MakeNetwork, state: checkpoint.State, count: int) -> "Judge":
        """The judge that a checkpoint has. Raises UserError where it has none."""
        theta = state.get("q.average")
        if theta is None:
            raise UserError(f"best_of={count} needs a Q to judge actions by, and its agent learns none")
        width = size(Q(spec, network, 1).shapes)
        if theta.dim() != 2 or len(theta) != 1 or not theta.numel() or theta.shape[1] % width or theta.isnan().any():
            raise UserError(f"its 'q.average' should be (1, a multiple of {width}) numbers, found {tuple(theta.shape)}")
        return cls(Q(spec, network, theta.shape[1] // width), theta, count)


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


class TrainedPolicy:
    """Maps observations as the environment gives them to actions as it takes them.

    source: where it was learnt, for people. It can be copied, pickled and shared by threads; a copy goes on drawing
    the random numbers that the original would.
    """

    def __init__(
        self,
        spec: Spec,
        policy: Policy,
        state: checkpoint.State,
        seed: int,
        source: str = "",
        judge: Judge | None = None,
    ) -> None:
        self.spec, self.policy, self.source, self.judge = spec, policy, source, judge
        self.theta = state.get(AVERAGE, state["actor.theta"])
        self.normalizer = [state[f"normalizer.{name}"] for name in ("mean", "std", "limit")]
        self.rng = numpy_generator(seed, "policy")

    def __repr__(self) -> str:
        return f"TrainedPolicy({self.source or 'of an agent'}: {self.spec})"

    @usual()
    def act_on_one(self, sample: bool) -> Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]:
        """From one observation and a generator to one action, the quickest way; sample: drawn, not the mode.

        That of a Gaussian may be out of bounds.
        """
        quick = None if self.judge and not sample else self.policy.numpy(self.theta, *self.normalizer)

        def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
            noise = self._noise(rng, 1, sample)
            if quick is None:
                return self._act(obs, noise)
            return quick(obs[None, None], None if noise is None else noise[None])[0, 0]

        return act

    def __call__(self, obs: Any, deterministic: bool = True) -> NDArray[Any]:
        """Actions [..., action_dim] inside the bounds; of discrete ones the environment's own numbers, [...].

        obs: one observation as `env.step` returns it, or a batch: an array or list [..., obs_dim]; of an environment
        with Dicts or Tuples those, of single values or of whole batches (as a vectorised environment gives them), a
        list of Dicts or tuples, or the flat vectors that they become, [..., obs_dim]. deterministic: as it is
        evaluated, by the mode or the best of several samples, instead of a sample. Raises UserError for anything else,
        and for numbers that are not finite.
        """
        flat = self._flat(obs)
        rows = math.prod(flat.shape[:-1])
        action = self._act(flat, self._noise(self.rng, rows, not deterministic))
        if self.spec.discrete:
            return action + self.spec.action_start
        return np.clip(action, *self._bounds())

    def _bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The bounds in float32, rounded inward: the environment's own may be of float64."""
        exact = np.array([self.spec.action_low, self.spec.action_high])
        low, high = exact.astype(np.float32)
        inf = np.float32(np.inf)
        return (
            np.where(low < exact[0], np.nextafter(low, inf), low),
            np.where(high > exact[1], np.nextafter(high, -inf), high),
        )

    def _flat(self, obs: Any) -> NDArray[np.float32]:
        """[..., obs_dim]. Raises UserError."""
        try:
            with np.errstate(over="ignore"):
                flat = self._read(obs)
            if not np.isfinite(flat).all():
                raise ValueError("it holds a number that is not finite, or none that float32 has")
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:
            parts = f", or {described(self.spec.observation)}" if self.spec.observation else ""
            raise UserError(
                f"this observation does not fit: {first_line(error)}; the policy takes (..., {self.spec.obs_dim}) "
                f"numbers{parts}"
            ) from None
        return flat

    def _read(self, obs: Any) -> NDArray[np.float32]:
        if isinstance(obs, list) and obs and all(isinstance(one, Mapping | tuple) for one in obs):
            return np.stack([self.spec.flatten(one) for one in obs])
        try:
            return self.spec.flatten(obs)
        except ValueError:
            flat = None if isinstance(obs, Mapping | tuple) else np.asarray(obs, np.float32)
            if flat is None or flat.ndim == 0 or flat.shape[-1] != self.spec.obs_dim:
                raise
            return flat

    def _noise(self, rng: np.random.Generator, rows: int, sample: bool) -> NDArray[np.float32] | None:
        """What actions are drawn with, [rows, n]; [count, rows, n] where the best of several is to be chosen."""
        width = self.policy.head.noise
        if sample or self.judge is None:
            return normal(rng, rows, width) if sample else None
        return normal(rng, self.judge.count * rows, width).reshape(self.judge.count, rows, width)

    @torch.no_grad()
    def _act(self, obs: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[Any]:
        """Actions for flat observations, which may be out of bounds and count from 0; noise: as `_noise` makes it."""
        rows = torch.as_tensor(obs, dtype=self.theta.dtype, device="cpu")
        rows = rows.reshape(1, math.prod(obs.shape[:-1]), self.spec.obs_dim)
        batch = normalize(rows, *(each.unsqueeze(1) for each in self.normalizer))
        drawn = None if noise is None else torch.as_tensor(noise[None], dtype=self.theta.dtype, device="cpu")
        if drawn is not None and drawn.dim() == 4:
            assert self.judge is not None
            action = self.judge.q.best(self.judge.theta, batch, self.policy.samples(self.theta, batch, drawn))
        else:
            action = self.policy.act(self.theta, batch, drawn)
        return action[0].unflatten(0, obs.shape[:-1]).numpy() if obs.ndim > 1 else action[0, 0].numpy()
