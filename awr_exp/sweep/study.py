"""The study of a search: where Optuna keeps it, and what it proposes."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from awr_exp import results
from awr_exp.errors import UserError, first_line
from awr_exp.guard import shown
from awr_exp.sweep.space import choices, library, point

JOURNAL = "optuna.journal"
STUDY = "optuna.study"
"""The file with the study's name."""

ATTEMPTS = 8
"""Proposals of the sampler that may have been tried before, until one is taken that was not."""


def open_study(folder: Path, storage: str | None, fixed: Sequence[str]) -> Any:
    """The study in its storage, or in the folder: an earlier one if it is there. Raises UserError for other settings.

    fixed: the overrides that all trials have in common.
    """
    optuna = library()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
    try:
        place = storage or optuna.storages.JournalStorage(journal)
        name = _name(folder, [] if storage else optuna.get_all_study_names(place))
        study = optuna.create_study(study_name=name, direction="maximize", storage=place, load_if_exists=True)
    except Exception as error:
        raise UserError(f"the study cannot be stored: {first_line(error)}; choose another storage") from None
    settings = dict(sorted(results.parsed(fixed).items()))
    before = study.user_attrs.get("settings", settings)
    if before != settings:
        was = " ".join(f"{key}={value}" for key, value in before.items()) if isinstance(before, dict) else "others"
        raise UserError(f"the study in {folder} was started with {was}: give the same command to go on with it")
    study.set_user_attr("settings", settings)
    return study


def _name(folder: Path, known: Sequence[str]) -> str:
    """The name of the study, which stays when its folder moves; known: those in a storage of the folder's own."""
    path = folder / STUDY
    if not path.exists():
        # A storage may hold the studies of several sweeps.
        fresh = "/".join(folder.resolve().parts[-2:])
        results.atomic_write(path, f"{known[0] if len(known) == 1 else fresh}\n".encode())
    return path.read_text().strip()


def check_space(study: Any, space: Mapping[str, Any]) -> None:
    """Raises UserError where earlier trials are of another space; fails the last if it was killed while asked for.

    A study may come from somebody else, and what its trials have becomes overrides.
    """
    optuna = library()
    state = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False):
        # What was asked for by hand comes without a distribution.
        for name, value in (trial.system_attrs.get("fixed_params", {}) | trial.params).items():
            known = getattr(space.get(name), "choices", None)
            if name not in space or not (value in known if known else type(value) in (int, float)):
                raise UserError(f"the study was started with another space: {name} was {shown(value)}")
    trials = study.get_trials(states=[state.RUNNING, state.PRUNED, state.COMPLETE])
    for number, trial in enumerate(trials, 1):
        begun = trial.distributions.keys()
        if number == len(trials) and trial.state == state.RUNNING and begun < space.keys():
            study.tell(trial.number, state=state.FAIL)
            return
        try:
            if begun != space.keys():
                raise ValueError(f"of {', '.join(begun)}")
            for name, one in trial.distributions.items():
                optuna.distributions.check_distribution_compatibility(one, space[name])
        except ValueError as error:
            raise UserError(f"the study was started with another space: {first_line(error)}") from None


def propose(study: Any, space: Mapping[str, Any], seed: int) -> Any:
    """A trial of what none before it had, or None where all there is has been tried."""
    optuna = library()
    before = study.get_trials(deepcopy=False)
    # Here, since it would double what a mistake takes.
    import numpy as np

    # Seeded by its number, a trial is the same however often the search was interrupted before it.
    seeds = np.random.SeedSequence([seed, len(before)]).generate_state(ATTEMPTS).tolist()
    # Trials of one batch are asked for before any of them has a result.
    samplers = [optuna.samplers.TPESampler(seed=one, constant_liar=True) for one in seeds]
    finite = [known for one in space.values() if (known := choices(one)) is not None]
    if len(finite) < len(space):
        study.sampler = samplers[0]
        return study.ask(dict(space))
    tried = {point(trial.params, space) for trial in before}

    def points() -> Iterator[tuple[Any, ...]]:
        for sampler in samplers:
            # In a copy, for what has been asked for cannot be taken back.
            copy = optuna.create_study(direction="maximize", sampler=sampler)
            copy.add_trials(before)
            yield point(copy.ask(dict(space)).params, space)
        yield from product(*finite)

    new = next((one for one in points() if one not in tried), None)
    if new is None:
        return None
    study.enqueue_trial(dict(zip(space, new, strict=True)))
    return study.ask(dict(space))
