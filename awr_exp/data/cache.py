"""The flat form of a data set, kept beside it or in the user's cache: made anew when anything it was made of changes.

It is numbers and JSON, never a pickle, and it is not trusted: one that is damaged, or was put there by somebody else,
is made anew, too. Of a large one some rows are looked at, and whether the file has changed since it was written.
"""

import hashlib
import json
import logging
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from awr_exp.data.mapped import mapped, read_at_random
from awr_exp.data.room import fits
from awr_exp.data.schema import STORED, Schema
from awr_exp.machine import cache_home
from awr_exp.types import Spec

log = logging.getLogger(__name__)

FORMAT = 5
"""The version of what is in a cache; those of other versions are made anew."""
SMALL = 2**24
"""Files up to this size, in bytes, are compared by their content; for larger ones, size and times have to do."""
SETTLED = 2.0
"""Seconds after which a second change of a file shows in its times, on every file system."""

LARGE = 2**30
"""Bytes of rows up to which each is looked at before they are used; of more, the state of the file and some of them."""
LOOKED_AT = 4_096
"""Of larger ones, the rows that are looked at, of evenly spaced places."""

State = list[Any]
"""What is different about a file once it has changed."""


@dataclass(frozen=True)
class Flat:
    """A data set as `awr_exp.data.transitions.Transitions` has it: packed rows, lengths of the episodes, their task.

    returns: [E] of the episodes, in float64; coarse: the names of what float32 is too coarse for.
    """

    packed: Tensor
    lengths: Tensor
    returns: NDArray[np.float64]
    spec: Spec
    coarse: list[str]


def state(file: Path) -> State:
    """The state of a file: size, times and, of a small one, a digest. Raises OSError if it cannot be read."""
    found = file.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(f"{file} is no file")
    content = hashlib.sha256(file.read_bytes()).hexdigest() if found.st_size <= SMALL else None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, content]


def read(folder: Path, made_of: Iterable[Path]) -> Flat | None:
    """The flat form of the data set in `folder`, if one was kept and all that it was made of, these files among it, is
    as it was then."""
    for place, name in _places(folder):
        try:
            facts = json.loads(_own(place / f"{name}.json").read_text(encoding="utf-8"))
            known = facts["made_of"]
            if facts["format"] != FORMAT or not {_relative(file, folder) for file in made_of} <= known.keys():
                raise ValueError("it is of other files")
            if any(state(folder.resolve() / file) != before for file, before in known.items()):
                raise ValueError("a file has changed")
            spec, lengths = Spec.from_json(facts["spec"]), np.array(facts["lengths"], np.int64)
            packed = mapped(_own(place / f"{name}.npy"))
            in_memory = fits(packed.numel() * packed.element_size())
            packed = packed.clone() if in_memory else packed
            if _digest(packed, facts, place / f"{name}.npy") != facts["digest"]:
                raise ValueError("it is damaged")
            returns = np.array(facts["returns"], np.float64)
            packed = packed if in_memory else read_at_random(packed)
            return Flat(packed, torch.from_numpy(lengths), returns, spec, list(facts["coarse"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            log.debug("no cache in %s: %s", place, error)
    return None


def write(folder: Path, made_of: dict[Path, State], flat: Flat, draft: Path | None = None) -> None:
    """Keep the flat form beside the data set, or in the user's cache where that folder is read-only, or nowhere.

    made_of: all files that it was read from, with their states before. A large one that has changed just now could
    change again without a trace: then nothing is kept yet. draft: one of `drafts` that has the rows already, if any.
    """
    now = time.time_ns()
    if any(content is None and now - max(times) < SETTLED * 1e9 for _, *times, content in made_of.values()):
        return
    facts: dict[str, Any] = {
        "format": FORMAT,
        "made_of": {_relative(file, folder): seen for file, seen in made_of.items()},
        "spec": asdict(flat.spec),
        "lengths": flat.lengths.tolist(),
        "returns": flat.returns.tolist(),
        "coarse": flat.coarse,
    }
    # Through JSON, as it will come back.
    facts = json.loads(json.dumps(facts))
    for place, name in _places(folder):
        try:
            if place.is_symlink():
                raise OSError("it is a link")
            if draft and draft.parent != place:
                continue
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place) as work:
                if draft is None:
                    np.save(Path(work) / "packed.npy", flat.packed.numpy())
                # Nobody takes new rows for old ones: the facts know them.
                os.replace(draft or Path(work) / "packed.npy", place / f"{name}.npy")
                facts["digest"] = _digest(flat.packed, facts, place / f"{name}.npy")
                (Path(work) / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
                os.replace(Path(work) / "facts.json", place / f"{name}.json")
            return
        except OSError as error:
            log.debug("no cache written to %s: %s", place, error)


def drafts(folder: Path) -> list[Path]:
    """The files in which rows may be written piece by piece, to be kept by `write`."""
    return [place / f"{name}.draft" for place, name in _places(folder)]


def _places(folder: Path) -> Iterator[tuple[Path, str]]:
    """The folders that may have the cache, and its name there, which stays: a new one takes an old one's place."""
    yield folder / ".awr_exp_cache", "flat"
    own = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    if home := cache_home():
        yield home / "awr_exp", own


def _relative(file: Path, folder: Path) -> str:
    """The path of a file from the folder on: another machine may have both elsewhere."""
    return os.path.relpath(file.resolve(), folder.resolve())


def _own(file: Path) -> Path:
    """The file itself. Raises ValueError for a link or another user's file, and OSError if it is not there."""
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{file} is no file")
    if hasattr(os, "getuid") and found.st_uid not in (0, os.getuid()):
        raise ValueError(f"{file} is another user's")
    return file


def _digest(packed: Tensor, facts: dict[str, Any], file: Path) -> str:
    """A digest of all that a cache holds, whose rows are in a file; of many rows, by `LARGE`, only of some.

    Raises ValueError if the rows do not have the form that the facts say.
    """
    spec, lengths = Spec.from_json(facts["spec"]), facts["lengths"]
    shape = sum(lengths) + len(lengths), Schema(spec, STORED).width
    if packed.shape != shape or packed.dtype != torch.float32 or not packed.is_contiguous():
        raise ValueError("it has another form")
    seen = {name: value for name, value in facts.items() if name != "digest"}
    if packed.numel() * packed.element_size() > LARGE:
        seen["file"] = state(file)
        packed = packed[:: -(-len(packed) // LOOKED_AT)].contiguous()
    of_rows = hashlib.sha256(packed.numpy().data).digest()
    return hashlib.sha256(of_rows + json.dumps(seen, sort_keys=True).encode()).hexdigest()
