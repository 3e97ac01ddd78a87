"""Rows of a table as steps: the columns of each role as one array of numbers, checked."""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.data.arrays import kept
from awr_exp.data.steps import check_finite
from awr_exp.errors import UserError
from awr_exp.importing.roles import Roles, entries
from awr_exp.importing.table import Table, place

SAID, EMPTY = 1, 2
"""How a row is known as a final observation: the file says so, or its action and reward are empty."""

WRITE = "write numbers as 0.98 or 1e-3, and give each choice a number"
LARGEST = 2**53
"""Where float64 begins to skip whole numbers."""


class Rows:
    """Some rows of a table, the first of which comes after `before` others.

    Raises UserError, which names file, column and row, for what is no number.
    """

    def __init__(self, table: Table, roles: Roles, columns: Mapping[str, NDArray[Any]], before: int) -> None:
        self.path, self.roles, self.columns, self.before = table.path, roles, dict(columns), before
        lengths = {name: len(column) for name, column in self.columns.items()}
        self.count, least = max(lengths.values()), min(lengths.values())
        longer = {name for name, length in lengths.items() if length > least}
        allowed = {*roles.columns.get("observation", ()), *roles.columns.get("episode", ())}
        allowed |= {*roles.columns.get("step", ()), *roles.columns.get("final", ())}
        self.closes = bool(longer) and self.count == least + 1 and longer <= allowed
        if longer and not self.closes:
            short, long = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
            raise UserError(
                f"{self.path}: {short} has {lengths[short]} rows, {long} has {lengths[long]}; an episode has a row a "
                "step, or one observation more"
            )

    def steps(self, apart: bool) -> dict[str, NDArray[Any]]:
        """The columns of a draft; apart: whether the rows are an episode of their own."""
        rewards = self._single("reward")
        if self.roles.constant is not None:
            rewards = np.full(self.count, self.roles.constant)
        assert rewards is not None
        actions, whole = self._joined("action")
        if actions.ndim != 2:
            raise UserError(f"{self.path}: actions have the shape {actions.shape[1:]}; they must be a row of numbers")
        final = self._final(actions, rewards)
        found = {
            "observations": self._joined("observation")[0],
            "actions": actions,
            "rewards": rewards.astype(np.float64),
            "terminated": self._flag("terminated", final),
            "truncated": self._flag("truncated", final),
            "final": final,
            "whole": np.full(self.count, whole),
        }
        if "next_observation" in self.roles.columns:
            found["next_observations"] = self._joined("next_observation")[0]
            if found["next_observations"].shape != found["observations"].shape:
                raise UserError(f"{self.path}: next_observation names other numbers than observation: name as many")
        if apart:
            found["episode"] = np.full(self.count, self.before, np.int64)
        elif "episode" in self.roles.columns:
            found["episode"] = self._ids()
        if "step" in self.roles.columns:
            found["step"] = self._numbers(self.roles.columns["step"][0], dates=True).astype(np.float64)
        self._check(found)
        return found

    def _place(self, name: str, row: int) -> str:
        return place(self.path, name, self.before + row)

    def _numbers(self, name: str, dates: bool = False) -> NDArray[Any]:
        """A column of numbers, with a row of zeros where it ends before the final observation."""
        values = _read(self.columns[name])
        if values.dtype.kind in "mM" and dates:
            times = values.astype(f"{values.dtype.kind}8[ns]").astype(np.int64)
            values = np.where(missing, np.nan, times) if (missing := np.isnat(values)).any() else times
        if values.dtype.kind not in "biuf":
            row, text = _strange(values)
            kind = "a date or a time" if values.dtype.kind in "mM" else f"'{text:.40}'"
            raise UserError(f"{self._place(name, row)} holds {kind}, which is no number: {WRITE}")
        return np.concatenate([values, np.zeros_like(values[:1])]) if len(values) < self.count else values

    def _joined(self, role: str) -> tuple[NDArray[Any], bool]:
        """The columns of a role side by side, and whether all that they hold are whole numbers by their type."""
        parts = [self._numbers(name) for name in self.roles.columns[role]]
        if len(parts) > 1 and any(part.ndim > 2 for part in parts):
            raise UserError(f"{self.path}: an array of several axes, as an image, cannot be one of several {role}s")
        parts = [part[:, None] if part.ndim == 1 else part for part in parts]
        whole = all(map(_whole, parts))
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
        return joined.astype(kept([part.dtype for part in parts]), copy=False), whole

    def _single(self, role: str) -> NDArray[Any] | None:
        """A column of one number a row; None where there is none."""
        if role not in self.roles.columns:
            return None
        (name,) = self.roles.columns[role]
        values = self._numbers(name)
        if values.size != len(values):
            raise UserError(
                f"{self.path}: {name} has {values.size // max(1, len(values))} numbers a row, {role} is one"
            )
        return values.reshape(-1)

    def _final(self, actions: NDArray[Any], rewards: NDArray[Any]) -> NDArray[np.uint8]:
        """How each row is known as a final observation, 0 where it is none."""
        empty = np.isnan(actions.astype(np.float64, copy=False)).all(1)
        if self.roles.constant is None:
            empty &= np.isnan(rewards.astype(np.float64, copy=False))
        final = np.where(empty, np.uint8(EMPTY), np.uint8(0))
        said = self._single("final")
        if said is not None:
            final[said == 1] = SAID
        if self.closes:
            final[-1] = SAID
        return final

    def _flag(self, role: str, final: NDArray[np.uint8]) -> NDArray[np.bool_]:
        values = self._single(role)
        if values is None:
            return np.zeros(self.count, bool)
        good = np.isin(values, (0, 1)) | (final > 0)
        if not good.all():
            row = int((~good).argmax())
            said = "is empty" if np.isnan(float(values[row])) else f"holds {values[row]:g}"
            raise UserError(
                f"{self._place(self.roles.columns[role][0], row)} {said}; a flag is 0 or 1, or true or false"
            )
        flags: NDArray[np.bool_] = values == 1
        return flags

    def _ids(self) -> NDArray[np.int64]:
        """A number for each row's episode, which may have a text for a name."""
        name = self.roles.columns["episode"][0]
        values = self.columns[name]
        if values.dtype.kind in "OUS":
            texts = list(map(_text, values.tolist()))
            if "" in texts:
                raise UserError(f"{self._place(name, texts.index(''))} is empty: name the episode of each row")
            ids = np.array(list(map(_id, texts)), np.int64)
        else:
            numbers = self._numbers(name, dates=True).reshape(-1)[: len(values)]
            check_finite(numbers, lambda row, entry: self._place(name, row))
            if numbers.dtype.kind == "f" and (large := abs(numbers) >= LARGEST).any():
                place = self._place(name, int(large.argmax()))
                raise UserError(f"{place} holds a number of too many digits to tell episodes apart: write shorter ones")
            ids = _numbered(numbers)
        # The final observation is of the episode before it.
        return np.append(ids, ids[-1:])[: self.count]

    def _check(self, found: Mapping[str, NDArray[Any]]) -> None:
        """Raises UserError for a number that is not finite."""
        final = found["final"] > 0
        for role, column in (("observation", "observations"), ("next_observation", "next_observations")):
            if column in found:
                check_finite(found[column], self._where(role), final if role != "observation" else None)
        check_finite(found["actions"], self._where("action"), final)
        check_finite(found["rewards"], self._where("reward"), final)
        if "step" in found:
            check_finite(found["step"], self._where("step"), final)

    def _where(self, role: str) -> Any:
        shapes = {name: column.shape[1:] for name, column in self.columns.items()}
        names = entries(self.roles, shapes, role)
        return lambda row, entry: self._place(names[entry], row)


def _read(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers, where texts are all numbers; anything else as it is."""
    if values.dtype.kind not in "OUS":
        return values
    with suppress(TypeError, ValueError):
        numbers = values.astype(np.float64)
        return numbers.astype(np.int64) if (abs(numbers) < LARGEST).all() and not (numbers % 1).any() else numbers
    return values


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else "" if value is None else str(value)


@lru_cache
def _id(name: str) -> int:
    """The number of an episode: its name, where that is a whole number, or else what nearly surely is of it alone."""
    if re.fullmatch(r"0|-?[1-9]\d{0,17}", name):
        return int(name)
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _numbered(numbers: NDArray[Any]) -> NDArray[np.int64]:
    """A number for each of these: whole ones are it, whatever their type, and of others it is their bits."""
    whole, exact = numbers.astype(np.int64), numbers.astype(np.float64)
    return whole if numbers.dtype.kind != "f" else np.where(exact == whole, whole, exact.view(np.int64))


def _whole(part: NDArray[Any]) -> bool:
    """Whether numbers are whole by their type, or are floats because some of the whole ones are missing."""
    missing = np.isnan(part) if part.dtype.kind == "f" else np.zeros(0, bool)
    return part.dtype.kind in "biu" or bool(missing.any() and (part == part.round())[~missing].all())


def _strange(values: NDArray[Any]) -> tuple[int, str]:
    """The first row whose value is no number, and the value; the first row where all could be."""
    texts = list(map(_text, values.ravel().tolist()))
    for entry, text in enumerate(texts):
        try:
            float(text or "nan")
        except ValueError:
            return entry * len(values) // len(texts), text
    return 0, texts[0]
