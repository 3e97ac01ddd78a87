"""Environments by number that are reset and stepped together, in this process or shared with workers.

All that can go wrong with an environment is dealt with here, whoever steps it: for collecting, evaluating, or episodes.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

from awr_exp.envs.build import MakeEnv, clips
from awr_exp.envs.spaces import spec_of
from awr_exp.envs.worker import Local, Stopped, Worker
from awr_exp.errors import FAILURES, named
from awr_exp.layout import Entries, flatten, structured
from awr_exp.types import Spec

NOT_FINITE = "it returned an observation or a reward that is not finite"
LARGEST = float(np.finfo(np.float32).max)
"""The largest reward, either way from 0, that a replay can hold."""

Numbers = NDArray[np.int64]


class Step(NamedTuple):
    """Holds what n environments returned, [n, ...] each; the numbers of those that did not move mean nothing.

    moved: whether the environment did what it was asked for; reasons: why it failed, by place, of those that did.
    """

    obs: NDArray[np.float32]
    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    reasons: dict[int, str]


class InProcess:
    """Steps environments 0, 1, ... in this process, one after another; every call names those it is for.

    numbers [n]: of these environments; seeds [n]: what their episodes begin from; actions [n, ...]: choices count from
    0, and numbers are clipped to the bounds of the environments, unless these want them as they are. Observations
    become flat vectors of float32, and flat actions become what the environments take.

    An environment is made when it is first reset. One that raises, or returns what is not finite or of another shape,
    has failed: it is closed, and made anew when it is next reset.

    copies: how many environments one made object is, which are always reset and stepped together; autoreset: whether
    episodes begin by themselves, see `Vectorized`; failures: how often environments have failed so far.
    """

    copies = 1
    autoreset = False

    def __init__(self, make_env: MakeEnv, obs_dim: int) -> None:
        self.make_env, self.obs_dim, self.failures = make_env, obs_dim, 0
        # The shape of what one made object observes.
        self.shape: tuple[int, ...] = (obs_dim,)
        self.envs: dict[int, Any] = {}
        # What the spaces of all of them say.
        self.entries: Entries = ()
        self.parts: Entries = ()
        self.starts: Any = None
        self.bounds: list[NDArray[Any]] = []

    def _make(self) -> tuple[Any, gymnasium.Space, gymnasium.Space]:
        """A made object, and the spaces of one observation and of one action."""
        env = self.make_env()
        return env, env.observation_space, env.action_space

    def reset(self, numbers: Numbers, seeds: Numbers) -> Step:
        def begin(own: Any, key: int) -> tuple[Any, ...]:
            if key not in self.envs:
                self.envs[key], observation, action = self._make()
                self._know(spec_of("the environment", observation, action), action.dtype)
            return self.envs[key].reset(seed=int(np.ravel(seeds[own])[0]))[0], 0.0, False, False

        return self._each(numbers, begin)

    def _know(self, spec: Spec, dtype: Any) -> None:
        """Take from the task how an action is given to the environments."""
        self.entries, self.parts = spec.observation, spec.action
        self.starts = spec.starts if np.any(spec.starts) else None
        bounded = not spec.discrete and clips(self.make_env)
        # Those of a Dict or Tuple, which has no dtype, are float64 until each part has its own.
        self.bounds = [np.array(bound, dtype) for bound in (spec.action_low, spec.action_high)] if bounded else []

    def step(self, numbers: Numbers, actions: NDArray[Any]) -> Step:
        # Copies, for some environments change their action in place.
        played = actions.copy() if self.starts is None else actions + self.starts
        if self.bounds:
            played = np.clip(played, *self.bounds).astype(self.bounds[0].dtype, copy=False)
        return self._each(numbers, lambda own, key: self.envs[key].step(structured(self.parts, played[own]))[:4])

    def _each(self, numbers: Numbers, call: Callable[[Any, int], tuple[Any, ...]]) -> Step:
        """Make a step of what `call` returns for each made object, by its place, or places, and its key.

        Objects that fail are closed.
        """
        size, copies = len(numbers), self.copies
        obs, reward = np.full((size, self.obs_dim), np.nan, np.float32), np.zeros(size)
        terminated, truncated = np.zeros((2, size), np.bool_)
        reasons: dict[int, str] = {}
        for place, key in zip(range(0, size, copies), (numbers[::copies] // copies).tolist(), strict=True):
            own = slice(place, place + copies) if self.autoreset else place
            try:
                result, gained, terminated[own], truncated[own] = call(own, key)
                reward[own] = gained if isinstance(gained, float) else self._rewards(gained)
                seen = flatten(self.entries, result) if self.entries else result
                if np.shape(seen) != self.shape:
                    raise ValueError(f"its observation has the shape {np.shape(seen)}, its space {self.shape}")
                obs[own] = seen
            except FAILURES as error:
                reasons[place] = named(error)
        moved: Any = np.isfinite(obs).all(1) & (np.abs(reward) <= LARGEST)
        if not moved.all():
            for place in np.unique(np.flatnonzero(~moved) // copies * copies).tolist():
                moved[place : place + copies] = False
                reasons.setdefault(place, NOT_FINITE)
                self._close(int(numbers[place]) // copies)
            self.failures += len(reasons)
        return Step(obs, reward, terminated, truncated, moved, reasons)

    def _rewards(self, gained: Any) -> float | NDArray[np.float64]:
        """One number of each environment, which it may give in whatever shape."""
        array = np.asarray(gained, np.float64)
        if array.size != self.copies:
            raise ValueError(f"its reward has the shape {array.shape}: it must be one number of each environment")
        return array.reshape(self.copies) if self.autoreset else array.item()

    def together(self, numbers: Numbers) -> Numbers:
        """These environments and those that are reset and stepped with them, in order."""
        if self.copies == 1:
            return numbers
        return (np.unique(numbers // self.copies)[:, None] * self.copies + np.arange(self.copies)).reshape(-1)

    def close(self) -> None:
        for key in list(self.envs):
            self._close(key)

    def _close(self, key: int) -> None:
        # Whatever it says to that, if it is there.
        with suppress(*FAILURES):
            self.envs.pop(key).close()


class Vectorized(InProcess):
    """Steps environments in their own vectorised form: each form is `copies` of them, in one call.

    Such a form begins an episode in the step after the one that ended the last: in that step, its copy does not move.
    Only the first episodes begin from a seed, so that no episode can be played again. Where a form fails, all of its
    copies do.
    """

    autoreset = True

    def __init__(self, make_env: Any, obs_dim: int, copies: int, forms: int) -> None:
        super().__init__(make_env, obs_dim)
        self.copies, self.shape = copies, (copies, obs_dim)
        self.ended = np.zeros(copies * forms, np.bool_)

    def _make(self) -> tuple[Any, gymnasium.Space, gymnasium.Space]:
        form = self.make_env.vector(self.copies)  # type: ignore[attr-defined]
        return form, form.single_observation_space, form.single_action_space

    def reset(self, numbers: Numbers, seeds: Numbers) -> Step:
        self.ended[numbers] = False
        return super().reset(numbers, seeds)

    def step(self, numbers: Numbers, actions: NDArray[Any]) -> Step:
        step = super().step(numbers, actions)
        moved = step.moved & ~self.ended[numbers]
        self.ended[numbers] = moved & (step.terminated | step.truncated)
        return step._replace(moved=moved)


class Workers:
    """Environments shared among processes, of which this is one: environment i is in process i % processes.

    Raises WorkerError where another process dies, or cannot do anything, and HangsError as a worker does.
    """

    def __init__(self, make_env: MakeEnv, obs_dim: int, processes: int, stopped: Stopped = lambda: False) -> None:
        make = partial(InProcess, make_env, obs_dim)
        # This process would only wait for the others.
        self.hosts: list[Local | Worker] = [Local(make)]
        try:
            for _ in range(1, processes):
                self.hosts.append(Worker(make, stopped))
        except BaseException:
            self.close()
            raise

    def reset(self, numbers: Numbers, seeds: Numbers) -> Step:
        return self._ask("reset", numbers, seeds)

    def step(self, numbers: Numbers, actions: NDArray[Any]) -> Step:
        return self._ask("step", numbers, actions)

    def _ask(self, name: str, numbers: Numbers, values: NDArray[Any]) -> Step:
        shares = [np.flatnonzero(numbers % len(self.hosts) == process) for process in range(len(self.hosts))]
        asked = [(host, share) for host, share in zip(self.hosts, shares, strict=True) if len(share)]
        for host, share in asked:
            host.ask(name, numbers[share], values[share])
        steps: list[Step] = [host.answer() for host, _ in asked]
        order = np.argsort(np.concatenate([share for _, share in asked]))
        columns: Any = [np.concatenate(column)[order] for column in zip(*(step[:-1] for step in steps), strict=True)]
        said = zip(asked, steps, strict=True)
        reasons = {int(share[place]): reason for (_, share), step in said for place, reason in step.reasons.items()}
        return Step._make([*columns, reasons])

    def close(self) -> None:
        for host in self.hosts:
            host.close()


Fleet = InProcess | Workers
"""Environments that are reset and stepped together, wherever they are."""
