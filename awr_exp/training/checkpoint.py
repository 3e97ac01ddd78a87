"""Checkpoints of one member: one safetensors file each, its metadata as JSON in the header. No pickle.

A file appears under its name only once it is complete, so a run that is killed always leaves a loadable one.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from awr_exp import reading
from awr_exp.errors import UserError, first_line
from awr_exp.ranges import Count, Options, Range, Whole, list_of, matches, of

if TYPE_CHECKING:
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)
KEEP = 2
"""Checkpoints of a run that are kept, beside the best one."""
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What is raised where something of a checkpoint is missing or of another shape."""

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
    "means": _numbers,
    "heldout": Range(_number, "a number"),
    "owed": of(bool),
    "conditioned": of(bool),
    "best_of": of(Count),
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
    found = _newest(folder, tensors)
    return found and found[1]


def _newest(folder: Path, tensors: bool) -> tuple[Path, tuple[State, dict[str, Any]]] | None:
    """The file of the newest readable checkpoint and what it holds, as `latest` has it."""
    paths = _numbered(folder)
    for path in reversed(paths):
        try:
            return path, read(path, tensors)
        except UserError as error:
            log.warning("%s", error)
    if paths:
        raise UserError(f"no checkpoint in {folder} can be read: start the run anew")
    return None


def best(folder: Path) -> tuple[State, dict[str, Any]] | None:
    """The checkpoint of the best evaluation, or the latest where nothing was evaluated."""
    path = folder / "checkpoint" / "best.safetensors"
    return read(path) if path.exists() else latest(folder)


def place(folder: Path, which: str) -> Path | None:
    """The file that `best` or `latest` reads, as `which` says, or None. Raises UserError as they do."""
    path = folder / "checkpoint" / "best.safetensors"
    if which == "best" and path.exists():
        return path
    found = _newest(folder, tensors=False)
    return found and found[0]


def _numbered(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoint").glob("update_*.safetensors"))


def keep(trainer: "Trainer", member: int, best: bool = False) -> None:
    """Write a checkpoint of a member; best: the one of its best evaluation, with nothing to go on from."""
    run, (learner, row) = trainer.runs[member], trainer.places[member]
    # From before a member diverged, it can go on with other settings; from then on it is frozen.
    if run.error is not None or not trainer.agent.alive[member]:
        return
    rows = {name: tensor[member : member + 1] for name, tensor in trainer.agent.state_dict().items()}
    if not best:
        rows |= learner.state(row)
    metadata = run.metadata | learner.metadata(row) | {"best": run.best, "latest": run.latest, "returns": run.returns}
    for callback in trainer.callbacks:
        metadata |= callback.metadata(member)
    if trainer.data:
        metadata["data"] = trainer.data.info.fingerprint
    with run.speaking():
        kept = save(run.folder, learner.update, rows, metadata, best)
    if not best:
        lost = "the newest checkpoint could not be written: make room, then resume, which learns again what was lost"
        run.lost = None if kept else UserError(lost)


def resume(trainer: "Trainer") -> None:
    """Go on from the newest checkpoints of the runs, which must be of the same update and step.

    Raises UserError where one has none, or where the data or the agent is another one.
    """
    found = [latest(run.folder) for run in trainer.runs]
    if None in found:
        raise UserError(f"{trainer.runs[found.index(None)].folder} has no checkpoint to resume from")
    try:
        _go_on(trainer, *zip(*(one for one in found if one is not None), strict=True))
    except MALFORMED as error:
        raise UserError(
            f"the run to resume has a checkpoint that is damaged, or of another version ({first_line(error)}): "
            "start the run anew"
        ) from None
    log.info("going on from %s %d", trainer.unit, trainer.step)


def _go_on(trainer: "Trainer", states: Sequence[State], metadata: Sequence[Metadata]) -> None:
    """Take over all members' checkpoints."""
    if trainer.data and any(fact.get("data") != trainer.data.info.fingerprint for fact in metadata):
        raise UserError(
            f"the run to resume was trained on other data than '{trainer.data.info.id}' is now: "
            "restore that data set or start a new run"
        )
    if metadata[0]["unit"] != trainer.unit:
        raise UserError(
            "the run to resume collects what it learns from: leave out trainer=offline"
            if trainer.unit == "update"
            else "the run to resume learnt from a data set alone: choose trainer=finetune resume_policy=<its folder>"
        )
    trainer.step, trainer.update = metadata[0]["step"], metadata[0]["update"]
    ours, begin = trainer.agent.state_dict().keys(), 0
    for learner in trainer.learners:
        own = slice(begin, begin + learner.agent.members)
        begin = own.stop
        learner.load(metadata[own], _joined(states[own], states[0].keys() - ours))
    try:
        trainer.agent.load_state_dict(_joined(states, states[0].keys() & ours))
    except ValueError as error:
        raise UserError(f"the run to resume has another agent or network than this configuration: {error}") from None
    for run, fact in zip(trainer.runs, metadata, strict=True):
        run.best, run.latest, run.returns = fact["best"], fact["latest"], fact.get("returns", [])
    # Only once everything fits: a recorder cuts off what came later.
    for callback in trainer.callbacks:
        callback.load(list(metadata))
    trainer.resumed = True


def _joined(states: Sequence[State], names: Iterable[str]) -> State:
    """The tensors of these names, of all members together."""
    return {name: torch.cat([state[name] for state in states]) for name in names}
