"""A trained policy as a function of observations, and as a module of PyTorch."""

import math
from collections.abc import Callable, Mapping
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from awr_exp.agents.members import AVERAGE
from awr_exp.errors import UserError, first_line
from awr_exp.layout import described, structured
from awr_exp.math.observations import normalize
from awr_exp.networks.actions import Q
from awr_exp.networks.policy import Policy
from awr_exp.seeding import normal, numpy_generator
from awr_exp.surroundings import usual
from awr_exp.types import Spec


class Judge(nn.Module):
    """Which of `count` sampled actions a policy takes: the one that Q, with its parameters theta [1, P], finds best."""

    theta: Tensor

    def __init__(self, q: Q, theta: Tensor, count: int) -> None:
        super().__init__()
        self.q, self.count = q, count
        self.register_buffer("theta", theta)


STATISTICS = ("mean", "std", "limit")
"""What normalises observations."""


def _inward(spec: Spec) -> tuple[Tensor, Tensor]:
    """The bounds of actions in float32, rounded inward: the environment's own may be of float64."""
    exact = torch.tensor([spec.action_low, spec.action_high], dtype=torch.float64, device="cpu")
    (low, high), inf = exact.float(), exact.new_tensor(torch.inf, dtype=torch.float32)
    low = torch.where(low < exact[0], low.nextafter(inf), low)
    return low, torch.where(high > exact[1], high.nextafter(-inf), high)


class TrainedPolicy(nn.Module):
    """Maps observations as the environment gives them to actions as it takes them; flat tensors to flat tensors.

    source: where it was learnt, for people. It can be copied, pickled, moved to a device and shared by threads; a copy
    goes on drawing the random numbers that the original would. Its parameters theta [1, P], the statistics that
    normalise observations, and the bounds of actions are buffers.
    """

    theta: Tensor
    mean: Tensor
    std: Tensor
    limit: Tensor
    low: Tensor
    high: Tensor
    starts: Tensor

    def __init__(
        self,
        spec: Spec,
        policy: Policy,
        state: Mapping[str, Tensor],
        seed: int,
        source: str = "",
        judge: Judge | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.policy, self.source, self.judge = spec, policy, source, judge
        self.rng = numpy_generator(seed, "policy")
        low, high = _inward(spec)
        starts = torch.as_tensor(spec.starts, device="cpu")
        buffers = {"theta": state.get(AVERAGE, state["actor.theta"]), "low": low, "high": high, "starts": starts}
        for name, tensor in (buffers | {name: state[f"normalizer.{name}"] for name in STATISTICS}).items():
            self.register_buffer(name, tensor)

    @property
    def normalizer(self) -> list[Tensor]:
        """mean and std [1, obs_dim] and limit [1, 1] of observations."""
        return [self.mean, self.std, self.limit]

    def __repr__(self) -> str:
        network, head = (type(part).__name__ for part in (self.policy.network, self.policy.head))
        chosen = f", the best of {self.judge.count} by Q" if self.judge else ""
        parts = f"{network} of {self.theta.numel()} parameters, {head}{chosen}"
        return f"TrainedPolicy({self.source or 'of an agent'}: {parts}; {self.spec})"

    @usual()
    def act_on_one(self, sample: bool) -> Callable[[NDArray[np.float32], np.random.Generator], NDArray[Any]]:
        """From one observation and a generator to one action, the quickest way; sample: drawn, not the mode.

        That of a Gaussian may be out of bounds, and discrete ones count from 0.
        """
        quick = None if self.judge and not sample else self.policy.numpy(self.theta, *self.normalizer)

        def act(obs: NDArray[np.float32], rng: np.random.Generator) -> NDArray[Any]:
            noise = self._drawn(rng, 1, sample)
            if quick is None:
                with torch.no_grad():
                    return self._chosen(self._tensor(obs[None]), self._tensor(noise))[0].cpu().numpy()
            return quick(obs[None, None], None if noise is None else noise[None])[0, 0]

        return act

    @overload
    def __call__(self, obs: Tensor, deterministic: bool = True) -> Tensor: ...
    @overload
    def __call__(self, obs: Any, deterministic: bool = True) -> Any: ...
    def __call__(self, obs: Any, deterministic: bool = True) -> Any:
        """Actions [..., action_dim] inside the bounds; of discrete ones the environment's own numbers, [...].

        What has another shape, or several parts, comes as the environment takes it: a Dict as a dict, with a batch
        along the first axes of its parts.

        obs: one observation as `env.step` returns it, or a batch: an array or list [..., obs_dim]; of an environment
        with Dicts or Tuples those, of single values or of whole batches (as a vectorised environment gives them), a
        list of Dicts or tuples, or the flat vectors that they become, [..., obs_dim]. A tensor goes to `forward`.
        deterministic: as it is evaluated, by the mode or the best of several samples, instead of a sample. Raises
        UserError for anything else, and for numbers that are not finite.
        """
        if isinstance(obs, Tensor):
            return super().__call__(obs, deterministic)
        flat = self._flat(obs)
        noise = self._drawn(self.rng, math.prod(flat.shape[:-1]), not deterministic)
        with torch.no_grad():
            # Of one observation a discrete action is a number and no array.
            action = self.act(self._tensor(flat), self._tensor(noise)).cpu().numpy()[()]
        return structured(self.spec.action, action)

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """The same of flat observations [..., obs_dim] on the policy's device, which nothing checks.

        Where it samples, it draws from PyTorch's generator.
        """
        shape = self._noise(math.prod(obs.shape[:-1]), not deterministic)
        return self.act(obs, None if shape is None else torch.randn(shape, dtype=torch.float32, device=obs.device))

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """`forward` by noise that is given, [R, n] for R observations, or [count, R, n] to choose the best of count.

        None: by the mode.
        """
        action = self._chosen(obs.reshape(math.prod(obs.shape[:-1]), self.spec.obs_dim), noise)
        if self.spec.discrete:
            action = action + self.starts.to(action.device)
        else:
            action = action.clamp(self.low.to(action), self.high.to(action))
        return action.reshape(obs.shape[:-1] + action.shape[1:])

    def _chosen(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions [R, ...] for obs [R, obs_dim], which may be out of bounds and count from 0; noise: as for `act`."""
        theta, noise = self.theta, None if noise is None else noise.to(self.theta)[None]
        batch = normalize(obs.to(theta)[None], *(each.unsqueeze(1) for each in self.normalizer))
        if noise is None or noise.dim() == 3:
            return self.policy.act(theta, batch, noise)[0]
        assert self.judge is not None
        return self.judge.q.best(self.judge.theta, batch, self.policy.samples(theta, batch, noise))[0]

    def _noise(self, rows: int, sample: bool) -> tuple[int, ...] | None:
        """The shape of what actions are drawn with, where they are; three numbers where the best is to be chosen."""
        width = self.policy.head.noise
        if sample or self.judge is None:
            return (rows, width) if sample else None
        return self.judge.count, rows, width

    def _drawn(self, rng: np.random.Generator, rows: int, sample: bool) -> NDArray[np.float32] | None:
        shape = self._noise(rows, sample)
        return None if shape is None else normal(rng, math.prod(shape[:-1]), shape[-1]).reshape(shape)

    def _tensor(self, array: NDArray[np.float32] | None) -> Any:
        return None if array is None else torch.as_tensor(array, device=self.theta.device)

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
