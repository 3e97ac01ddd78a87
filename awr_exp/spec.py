"""What a task is: the shapes and bounds of its observations and actions."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from awr_exp import layout

MOST = 1 << 24
"""Choices that rows of float32 can tell apart."""


@dataclass(frozen=True, repr=False)
class Spec:
    """Shapes and bounds of a task.

    A task with one discrete action has `num_actions`, which the environment counts from `action_start` on and everybody
    else from 0, and no bounds. One with several choices has `action_dim` of them, which the parts of `action` describe.
    A continuous one has `action_dim` entries an action and their bounds, which may be infinite.
    observation: the parts that the obs_dim columns of an observation come from, where that is no vector by itself;
    action: the same of the action_dim numbers of an action, where that is neither a vector nor one choice; dtype: of
    the environment's own values of a vector; history: how many of the last observations are seen at once, one after
    another on the first axis of each part, and before an episode's first one that again, see `stacked`; chunk: how many
    steps an action is for, see `chunked`.
    """

    obs_dim: int
    action_dim: int = 1
    num_actions: int | None = None
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    action_start: int = 0
    observation: layout.Entries = ()
    action: layout.Entries = ()
    dtype: str = field(default="float32", compare=False)
    history: int = field(default=1, compare=False)
    chunk: int = 1

    @property
    def entries(self) -> layout.Entries:
        """The parts of an observation; a vector is one."""
        return self.observation or (layout.Entry((), (self.obs_dim,), dtype=self.dtype),)

    def stacked(self, history: int) -> "Spec":
        """The task of which so many observations are seen at once, the last of which is now."""
        if history == 1:
            return self
        entries = tuple(entry.stacked(history) for entry in self.entries)
        return replace(self, obs_dim=history * self.obs_dim, observation=entries, history=history)

    @property
    def single(self) -> "Spec":
        """The task of which `history` observations are seen at once, where one of them is seen."""
        if self.history == 1:
            return self
        entries = tuple(entry.single for entry in self.entries)
        return replace(self, obs_dim=self.obs_dim // self.history, observation=entries, history=1)

    def chunked(self, steps: int) -> "Spec":
        """The task of which an action is a chunk: those of so many steps, one after another.

        Each part of an action has them along a first axis.
        """
        if steps == 1:
            return self
        whole = layout.Entry((), self.action_shape, self.counts, (self.action_start,) * len(self.counts), "int64")
        if not self.discrete:
            whole = layout.Entry((), self.action_shape)
        parts = tuple(entry.stacked(steps) for entry in self.action or (whole,))
        chunk = replace(self, action_dim=steps * self.action_dim, num_actions=None, action_start=0, action=parts)
        chunk = replace(chunk, chunk=steps)
        if self.discrete:
            return chunk
        low, high = np.empty((2, chunk.action_dim))
        low[chunk.places], high[chunk.places] = self.action_low, self.action_high
        return replace(chunk, action_low=tuple(low.tolist()), action_high=tuple(high.tolist()))

    @property
    def unchunked(self) -> "Spec":
        """The task of one step of a chunk."""
        if self.chunk == 1:
            return self
        parts = tuple(entry.single for entry in self.action)
        one = replace(self, action_dim=self.action_dim // self.chunk, action=parts, chunk=1)
        if not self.discrete:
            low, high = (
                tuple(np.array(bound)[self.places[0]].tolist()) for bound in (self.action_low, self.action_high)
            )
            one = replace(one, action_low=low, action_high=high)
        first, *others = parts
        if others or first.path or len(first.shape) != (0 if self.discrete else 1):
            return one
        if not self.discrete:
            return replace(one, action=())
        return replace(one, action=(), num_actions=first.counts[0], action_start=first.starts[0])

    @property
    def places(self) -> NDArray[np.int64]:
        """Where in a chunk the numbers of each of its actions lie, [chunk, action_dim of one]."""
        ends = np.cumsum([entry.size for entry in self.action])
        parts = [np.arange(end - entry.size, end) for end, entry in zip(ends, self.action, strict=True)]
        return np.concatenate([part.reshape(self.chunk, -1) for part in parts], 1)

    def steps(self, action: NDArray[Any]) -> NDArray[Any]:
        """The actions [chunk, ..., n], or [chunk, ...] of single choices, that chunks [..., action_dim] are."""
        if self.chunk == 1:
            return action[None]
        steps = np.moveaxis(action[..., self.places], -2, 0)
        return steps.reshape(*steps.shape[:-1], *self.unchunked.action_shape)

    @property
    def discrete(self) -> bool:
        return bool(self.counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """How many choices there are of each number of an action; none of continuous ones."""
        if self.num_actions is not None:
            return (self.num_actions,)
        return tuple(count for entry in self.action for count in entry.counts)

    @property
    def starts(self) -> "int | NDArray[np.int64]":
        """What the environment counts the choices of each number of an action from."""
        if self.action and self.discrete:
            return np.array([start for entry in self.action for start in entry.starts])
        return self.action_start

    @property
    def action_shape(self) -> tuple[int, ...]:
        """The shape of an action: one discrete action is a number by itself, and anything else is a vector."""
        return () if self.num_actions is not None else (self.action_dim,)

    @property
    def action_names(self) -> list[str]:
        """What each number of an action is called."""
        entries = self.action or (layout.Entry((), (self.action_dim,)),)
        named = [("/".join(map(str, entry.path)), entry.size) for entry in entries]
        return [
            (name if size == 1 else f"{name}[{number}]") if name else str(number)
            for name, size in named
            for number in range(size)
        ]

    @property
    def choices(self) -> str:
        """What there is to choose from where actions are discrete, in words."""
        if self.num_actions is not None:
            return f"{self.num_actions} discrete ones"
        return f"{self.action_dim} choice{'s' if self.action_dim > 1 else ''} of {self.action_parts}"

    @property
    def action_parts(self) -> str:
        """The parts of an action in words, where it has some."""
        return layout.described(self.action)

    def __repr__(self) -> str:
        parts = f" of {layout.described(self.observation)}" if self.observation else ""
        actions = self.choices
        if self.num_actions is not None:
            actions += f", {self.action_start} to {self.action_start + self.num_actions - 1}"
        if not self.discrete:
            bounds = [f"{low:g} to {high:g}" for low, high in zip(self.action_low, self.action_high, strict=True)]
            shapes = f" of {self.action_parts}" if self.action else ""
            actions = f"{_numbers(self.action_dim)}{shapes}, {', '.join(dict.fromkeys(bounds))}"
        steps = f" for {self.chunk} steps" if self.chunk > 1 else ""
        return f"Spec(observations: {_numbers(self.obs_dim)}{parts}; actions{steps}: {actions})"

    def _has_whole_action(self) -> bool:
        """Whether the parts of an action are all that it is, and either numbers or choices."""
        if not self.action:
            return True
        of_choices = sum(entry.size for entry in self.action if entry.counts)
        whole = sum(entry.size for entry in self.action) == self.action_dim and self.num_actions is None
        return whole and of_choices in (0, self.action_dim) and of_choices == len(self.counts)

    def _has_history(self) -> bool:
        """Whether each part of an observation is as many at once as `history` says."""
        if type(self.history) is not int or self.history < 1:
            return False
        return self.history == 1 or all(entry.shape[:1] == (self.history,) for entry in self.entries)

    def _has_whole_chunks(self) -> bool:
        """Whether each part of a chunk is of all of its steps."""
        return self.chunk == 1 or {entry.shape[:1] for entry in self.action} == {(self.chunk,)}

    def flatten(self, obs: ArrayLike | Any) -> NDArray[np.float32]:
        """An observation as the environment gives it, or a batch of them, as [..., obs_dim].

        Raises ValueError where it is of another kind.
        """
        array = layout.flatten(self.observation, obs) if self.observation else np.asarray(obs, np.float32)
        if array.ndim == 0 or array.shape[-1] != self.obs_dim:
            raise ValueError(f"it has the shape {array.shape}, its space {(self.obs_dim,)}")
        return array

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Spec":
        """A task from `dataclasses.asdict` after a round trip through JSON, which turns tuples into lists.

        Raises ValueError for what is none.
        """
        try:
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
            parts: dict[str, Any] = {
                name: tuple(map(layout.Entry.from_json, fields.pop(name, ()))) for name in ("observation", "action")
            }
            spec = cls(**fields, **parts)
            counts = [spec.obs_dim, spec.action_dim, spec.chunk, *spec.counts]
            bounds = [*spec.action_low, *spec.action_high]
            widths = [entry.width for entry in spec.entries]
            ends = [len(bound) for bound in (spec.action_low, spec.action_high)]
            problems = {
                "sizes that are no whole numbers of at least 1": not all(type(n) is int and n >= 1 for n in counts),
                "more choices than can be kept": len(spec.counts) * max(spec.counts, default=0) > MOST,
                "actions that begin at no whole number": type(spec.action_start) is not int,
                "observations that are no numbers": np.dtype(spec.dtype).kind not in "biuf",
                "action bounds that are no numbers": not all(type(bound) in (int, float) for bound in bounds),
                "other numbers of action bounds than of actions": ends != 2 * [0 if spec.discrete else spec.action_dim],
                "observations whose parts are not as many numbers as the whole": sum(widths) != spec.obs_dim,
                "another number of observations at once than their parts": not spec._has_history(),
                "actions whose parts are not as many numbers as the whole": not spec._has_whole_action(),
                "chunks of actions that are not of as many steps": not spec._has_whole_chunks(),
            }
        except (TypeError, AttributeError):
            raise ValueError("it describes no task") from None
        for said, found in problems.items():
            if found:
                raise ValueError(f"its task has {said}")
        return spec


def _numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count} numbers"
