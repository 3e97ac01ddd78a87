"""Checkpoints of one member: one safetensors file each, its metadata as JSON in the header. No pickle.

A file appears under its name only once it is complete, so a run that is killed always leaves a loadable one.
"""

import json
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from awr_exp import reading
from awr_exp.errors import UserError, first_line
from awr_exp.ranges import Options, Range, Whole, list_of, matches, of

log = logging.getLogger(__name__)
KEEP = 2

State = dict[str, Tensor]
Metadata = dict[str, Any]


def save(folder: Path, update: int, state: State, metadata: dict[str, Any], best: bool = False) -> bool:
    """Write `<folder>/checkpoint/update_<n>.safetensors` (or best), keeping the last two.

    A full disk or a missing permission costs the checkpoint and one warning, not the run: the result is False.
    """
    target = folder / "checkpoint" / ("best.safetensors" if best else f"update_{update:010d}.safetensors")
    partial = target.with_suffix(".partial")
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(content, partial, metadata={"facts": json.dumps({"update": update, **metadata})})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        # Else it would be for the eyes of this user alone, whoever may read the rest of the run.
        partial.chmod(target.parent.stat().st_mode & 0o666)
        os.replace(partial, target)
        for old in _numbered(folder)[:-KEEP]:
            old.unlink()
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink()
        log.warning("checkpoint at update %d could not be written: %s", update, error)
        return False
    return True


def read(path: Path, tensors: bool = True) -> tuple[State, dict[str, Any]]:
    """Tensors, unless they are not asked for, and metadata of a checkpoint file.

    Raises UserError if it is damaged, or if a fact is not what it should be.
    """
    try:
        reading.check_header(path)
        with safe_open(path, "pt") as file:
            metadata = reading.parse_json((file.metadata() or {})["facts"], path)
            state = {name: file.get_tensor(name) for name in file.keys() if tensors}  # noqa: SIM118
    except KeyError:
        raise UserError(f"checkpoint {path} cannot be read: it has no metadata of awr_exp") from None
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"checkpoint {path} cannot be read: {first_line(error)}") from None
    if not isinstance(metadata, dict):
        raise UserError(f"checkpoint {path} cannot be read: its metadata is no mapping")
    for name, wanted in METADATA.items():
        if (name in metadata or name == "update") and not wanted.accepts(metadata.get(name)):
            raise UserError(f"checkpoint {path} cannot be read: its {name} must be {wanted}")
    return state, _of_today(metadata)


def _of_today(metadata: Metadata) -> Metadata:
    """Metadata as they are written now, of a checkpoint that was written when they did not say what steps count."""
    unit = "environment step" if "step" in metadata else "update"
    return {"unit": unit, "step": metadata["update"], "counts": metadata.get("summed", 0), **metadata}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mapping_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(accepts, value.values()))


_whole: Any = of(Whole)
_numbers = Range(list_of(_number), "a list of numbers")
METADATA: dict[str, Any] = {
    "spec": of(Options),
    "network": of(Options),
    "head": of(Options),
    "recorder": of(Options),
    "best": Range(_number, "a number"),
    "latest": Range(_mapping_of(_number), "a mapping of numbers"),
    "returns": _numbers,
    "began": _numbers,
    "owed": of(bool),
    "unit": Range(lambda v: isinstance(v, str), "a text"),
    # What a folder may be called by.
    "run_id": Range(lambda v: v is None or matches(r"[-\w]{1,128}")(v), "the id of a W&B run"),
    "counts": Range(_mapping_of(_whole.accepts), "a mapping of whole numbers"),
    "finished": Range(list_of(list_of(_number)), "a list of pairs of numbers"),
    **dict.fromkeys(("update", "step", "added", "refreshed", "summed"), _whole),
}
"""The ranges of those metadata of a checkpoint that anything is made of; others are only compared."""


def latest(folder: Path, tensors: bool = True) -> tuple[State, dict[str, Any]] | None:
    """The newest readable checkpoint of a run as by `read`, None if it never wrote one.

    Raises UserError if there are some and none can be read.
    """
    paths = _numbered(folder)
    for path in reversed(paths):
        try:
            return read(path, tensors)
        except UserError as error:
            log.warning("%s", error)
    if paths:
        raise UserError(f"no checkpoint in {folder} can be read: start the run anew")
    return None


def best(folder: Path) -> tuple[State, dict[str, Any]] | None:
    """The checkpoint of the best evaluation, or the latest where nothing was evaluated."""
    path = folder / "checkpoint" / "best.safetensors"
    return read(path) if path.exists() else latest(folder)


def _numbered(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoint").glob("update_*.safetensors"))
