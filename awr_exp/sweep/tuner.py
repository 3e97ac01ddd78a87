"""A search instead of a grid: Optuna proposes trials in batches, each of which trains as one group."""

import logging
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import OmegaConf

from awr_exp import results, shell
from awr_exp.errors import UserError
from awr_exp.ranges import Count, Options, Text, Whole
from awr_exp.sweep import closing
from awr_exp.sweep.space import check_space, choices, distribution, edges, library, point
from awr_exp.sweep.sweeper import Grid, one_line
from awr_exp.training.progress import CLOSING

log = logging.getLogger(__name__)

JOURNAL = "optuna.journal"
STUDY = "optuna.study"
"""The file with the study's name."""

ATTEMPTS = 8
"""Proposals of the sampler that may have been tried before, until one is taken that was not."""

HALVING = 2
"""From one rung to the next the updates, or environment steps, double, and half of the trials go on."""


class Tuner(Grid):
    """Maximises what the jobs return (`objective`): n_trials in all, batch_size at once, judged at `rungs` points.

    By the tree-structured Parzen estimator (Bergstra et al. 2011) and successive halving (Li et al. 2020).
    """

    def __init__(
        self,
        n_trials: Count,
        batch_size: Count,
        rungs: Count,
        seed: Whole,
        storage: Text | None,
        params: Options | None = None,
    ) -> None:
        super().__init__(params=params)
        self.n_trials, self.batch_size, self.rungs = n_trials, batch_size, rungs
        self.seed, self.storage = seed, storage

    def train(self, arguments: list[str], folder: Path) -> tuple[list[JobReturn], bool]:
        """Run the study or go on with it, as `Grid.train` does with all combinations."""
        space, fixed = self.space(arguments)
        # The edges of the space stand for all of it: what is wrong there is said before anything trains.
        ends = [[*fixed, *edge] for edge in edges(space)]
        self.check(ends, folder)
        for edge in ends if self.rungs > 1 else ():
            self.check_rung(edge)
        self.check_launcher()
        if (folder / "0").exists() and not (self.storage or (folder / JOURNAL).exists()):
            raise UserError(f"{folder} holds another sweep: choose another hydra.sweep.dir")
        self.make(folder)
        self.returns: dict[int, JobReturn] = {}
        with results.file_lock(folder):
            study = self.study(folder, fixed)
            check_space(study, space)
            try:
                self.search(study, space, fixed)
            finally:
                failed = self.show(study, fixed, folder)
        return [self.returns[number] for number in sorted(self.returns)], failed

    def space(self, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Optuna's distribution of each override that is swept, and the others. Raises UserError."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        try:
            overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        except HydraException as error:
            raise UserError(one_line(error)) from None
        swept = {one.get_key_element(): distribution(one) for one in overrides if one.is_sweep_override()}
        if not swept:
            raise UserError("there is nothing to tune: give a space such as agent.beta='tag(log,interval(0.03,3.0))'")
        fixed = {one.get_key_element(): one.input_line or "" for one in overrides if not one.is_sweep_override()}
        return swept, list(fixed.values())

    def check_rung(self, overrides: list[str]) -> None:
        """Raises UserError where nothing could be learnt, or recorded, up to the first rung."""
        from awr_exp.building.build import build

        cfg: Any = self.compose(self.shortened(overrides, 0, 0), 0)
        if (cfg.get("recorder") or {}).get("dataset_id"):
            raise UserError(
                "recorder.dataset_id records a whole run, but trials are judged on the way: leave it out, and record "
                "the best in a run of its own"
            )
        trainer: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
        if "schedule" in trainer:
            try:
                # Of workers there are as many in every rung.
                build(trainer["schedule"]).check(trainer["env_steps"], trainer["envs"], 1, bool(cfg.dataset))
            except UserError as error:
                raise UserError(f"of the first of {self.rungs} hydra.sweeper.rungs: {error}, or fewer rungs") from None

    def study(self, folder: Path, fixed: list[str]) -> Any:
        """The study in its storage, an earlier one if it is there. Raises UserError if that was of other settings."""
        optuna = library()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = optuna.storages.journal.JournalFileBackend(str(folder / JOURNAL))
        try:
            storage = self.storage or optuna.storages.JournalStorage(journal)
            name = self.name(folder, [] if self.storage else optuna.get_all_study_names(storage))
            study = optuna.create_study(study_name=name, direction="maximize", storage=storage, load_if_exists=True)
        except Exception as error:
            raise UserError(f"the study cannot be stored: {one_line(error)}; choose another storage") from None
        settings = dict(sorted(results.parsed(fixed).items()))
        before = study.user_attrs.get("settings", settings)
        if before != settings:
            was = " ".join(f"{key}={value}" for key, value in before.items()) if isinstance(before, dict) else "others"
            raise UserError(f"the study in {folder} was started with {was}: give the same command to go on with it")
        study.set_user_attr("settings", settings)
        return study

    def name(self, folder: Path, known: Sequence[str]) -> str:
        """The name of the study, which stays when its folder moves; known: those in a storage of the folder's own."""
        path = folder / STUDY
        if not path.exists():
            # A storage may hold the studies of several sweeps.
            fresh = "/".join(folder.resolve().parts[-2:])
            results.atomic_write(path, f"{known[0] if len(known) == 1 else fresh}\n".encode())
        return path.read_text().strip()

    def ask(self, study: Any, space: Mapping[str, Any]) -> Any:
        """A trial of what none before it had, or None where all there is has been tried."""
        optuna = library()
        before = study.get_trials(deepcopy=False)
        # Seeded by its number, a trial is the same however often the search was interrupted before it.
        # Here, since it would double what a mistake takes.
        import numpy as np

        seeds = np.random.SeedSequence([self.seed, len(before)]).generate_state(ATTEMPTS).tolist()
        # Trials of one batch are asked for before any of them has a result.
        samplers = [optuna.samplers.TPESampler(seed=seed, constant_liar=True) for seed in seeds]
        if any(choices(one) is None for one in space.values()):
            study.sampler = samplers[0]
            return study.ask(dict(space))
        tried = {point(trial.params, space) for trial in before}
        for sampler in samplers:
            # In a copy, for what has been asked for cannot be taken back.
            copy = optuna.create_study(direction="maximize", sampler=sampler)
            copy.add_trials(before)
            params = copy.ask(dict(space)).params
            if point(params, space) not in tried:
                break
        else:
            all_of_them = product(*(choices(one) or () for one in space.values()))
            new = next((one for one in all_of_them if one not in tried), None)
            if new is None:
                return None
            params = dict(zip(space, new, strict=True))
        study.enqueue_trial(params)
        return study.ask(dict(space))

    def search(self, study: Any, space: Mapping[str, Any], fixed: list[str]) -> None:
        """Fill the places, train everybody to the next rung, let go of the hopeless, and again."""
        optuna = library()
        state = optuna.trial.TrialState
        # Those that an interrupted search left behind go on where they were.
        active = [optuna.trial.Trial(study, trial._trial_id) for trial in study.get_trials(states=[state.RUNNING])]
        while True:
            free = min(self.batch_size - len(active), self.n_trials - len(study.get_trials(deepcopy=False)))
            new = [trial for _ in range(free) if (trial := self.ask(study, space)) is not None]
            if len(new) < free:
                log.info("all combinations have been tried")
            active += new
            if not active:
                return
            rungs = {trial.number: len(_reports(study, trial)) for trial in active}
            done = self.launch(
                {
                    trial.number: self.shortened(_overrides(trial, fixed), trial.number, rungs[trial.number])
                    for trial in active
                }
            )
            self.returns |= done
            alive = []
            for trial in active:
                result = done[trial.number]
                if result.status == JobStatus.FAILED:
                    # One whose process was lost is left running: the next search in this folder goes on with it.
                    place = self.place(_overrides(trial, fixed), trial.number)
                    if results.read(place, {}).status == results.FAILED:
                        study.tell(trial, state=state.FAIL)
                    continue
                if result.return_value is None:
                    raise UserError(_unmeasured(result.cfg))
                trial.report(float(result.return_value), rungs[trial.number] + 1)
                alive.append(trial)
            # All have reported by now, so that each is judged beside the others of its batch and all before it.
            active = []
            for trial in alive:
                rung, value = rungs[trial.number] + 1, float(done[trial.number].return_value)
                if rung >= self.rungs:
                    study.tell(trial, value)
                elif promising(value, _at(study, rung)):
                    active.append(trial)
                else:
                    results.mark(self.place(_overrides(trial, fixed), trial.number), results.PRUNED)
                    study.tell(trial, state=state.PRUNED)

    def shortened(self, overrides: list[str], number: int, rung: int) -> list[str]:
        """The overrides of job `number` up to its next rung."""
        chosen = list(overrides)
        trainer = self.compose(chosen, number).trainer
        unit = "updates" if "updates" in trainer else "env_steps"
        if "anneal_steps" in trainer and trainer.anneal_steps is None:
            # All steps: of the whole trial, not of those up to a rung.
            chosen.append(f"trainer.anneal_steps={trainer[unit]}")
        if rung + 1 >= self.rungs:
            return chosen
        others = [one for one in chosen if not one.startswith(f"trainer.{unit}=")]
        return [*others, f"trainer.{unit}={max(1, trainer[unit] // HALVING ** (self.rungs - 1 - rung))}"]

    def launch(self, jobs: Mapping[int, list[str]]) -> dict[int, JobReturn]:
        """Train jobs under their own numbers: together if the launcher can, else one after another."""
        assert self.launcher is not None
        numbered = getattr(self.launcher, "launch_numbered", None)
        if numbered:
            return dict(zip(jobs, numbered(jobs), strict=True))
        return {number: self.launcher.launch([job], initial_job_idx=number)[0] for number, job in jobs.items()}

    def show(self, study: Any, fixed: list[str], folder: Path) -> bool:
        """The table of all trials, and the best as a command; True if any failed."""
        optuna = library()
        trials = study.get_trials(deepcopy=False)
        jobs = [_overrides(trial, fixed) for trial in trials]
        places = [self.place(job, number) for number, job in enumerate(jobs)]
        failed = closing.show(folder, jobs, places, self.returns)
        if any(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials):
            best = [job for job in jobs[study.best_trial.number] if not job.startswith("sweep.")]
            # The sweep's file may set more than the space.
            alone = ["hydra.mode=RUN"] if any(shell.key(job) == "sweep" for job in best) else []
            log.log(CLOSING, "best, %.4g: %s", study.best_value, shell.with_own_parts(*best, *alone))
        return failed


def promising(value: float, others: Sequence[float]) -> bool:
    """Whether a value is among the best 1 / HALVING of all that have come to its rung, which it is one of."""
    kept = -(-len(others) // HALVING)
    return value >= sorted(others, reverse=True)[kept - 1]


def _overrides(trial: Any, fixed: Sequence[str]) -> list[str]:
    """All overrides of a trial."""
    return [*fixed, *(f"{name}={value}" for name, value in trial.params.items())]


def _reports(study: Any, trial: Any) -> Mapping[int, float]:
    values: Mapping[int, float] = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    return values


def _unmeasured(cfg: Any) -> str:
    """Why a trial has no objective, in words."""
    name = cfg.objective if cfg else "the objective"
    evaluates = cfg is not None and not str(cfg.env.get("_target_")).endswith(".none")
    if evaluates and name == "eval/normalized_score":
        return f"no trial measured {name}: the data set has no reference scores, so choose objective=eval/return_mean"
    choice = "" if evaluates else "an environment (env=from_dataset), or "
    return f"no trial measured {name}: choose {choice}an objective that every run logs (objective=train/...)"


def _at(study: Any, rung: int) -> list[float]:
    """What all trials that have come to a rung reported there."""
    found = [trial.intermediate_values.get(rung) for trial in study.get_trials(deepcopy=False)]
    return [value for value in found if value is not None]
