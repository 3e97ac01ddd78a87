"""What the checkpoints of a trainer's runs keep is written here, and taken up again."""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from awr_exp.errors import UserError, first_line
from awr_exp.training import checkpoint

if TYPE_CHECKING:
    from awr_exp.training.trainer import Trainer

log = logging.getLogger(__name__)

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
"""What is raised where something of a checkpoint is missing or of another shape."""


def keep(trainer: "Trainer", member: int, best: bool) -> None:
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
        kept = checkpoint.save(run.folder, learner.update, rows, metadata, best)
    if not best:
        lost = "the newest checkpoint could not be written: make room, then resume, which learns again what was lost"
        run.lost = None if kept else UserError(lost)


def resume(trainer: "Trainer") -> None:
    """Go on from the newest checkpoints of the runs, which must be of the same update and step.

    Raises UserError where one has none, or where the data or the agent is another one.
    """
    found = [checkpoint.latest(run.folder) for run in trainer.runs]
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


def _go_on(trainer: "Trainer", states: Sequence[checkpoint.State], metadata: Sequence[checkpoint.Metadata]) -> None:
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


def _joined(states: Sequence[checkpoint.State], names: Iterable[str]) -> checkpoint.State:
    """The tensors of these names, of all members together."""
    return {name: torch.cat([state[name] for state in states]) for name in names}
