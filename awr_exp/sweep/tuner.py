"""A search instead of a grid: Optuna proposes trials in batches, each of which trains as one group."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from awr_exp import results, shell
from awr_exp.errors import UserError
from awr_exp.ranges import Count, Options, Text, Whole
from awr_exp.sweep import closing
from awr_exp.sweep.job import place
from awr_exp.sweep.launcher import Fused
from awr_exp.sweep.space import distribution, edges, library
from awr_exp.sweep.study import JOURNAL, check_space, open_study, propose
from awr_exp.sweep.sweeper import Grid, explained
from awr_exp.training.progress import CLOSING

log = logging.getLogger(__name__)

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
            study = open_study(folder, self.storage, fixed)
            check_space(study, space)
            try:
                self.search(study, space, fixed)
            finally:
                failed = self.show(study, fixed, folder)
        return [self.returns[number] for number in sorted(self.returns)], failed

    def space(self, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Optuna's distribution of each override that is swept, and the others. Raises UserError."""
        with explained():
            overrides = self.parse(arguments)
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

    def search(self, study: Any, space: Mapping[str, Any], fixed: list[str]) -> None:
        """Fill the places, train everybody to the next rung, let go of the hopeless, and again."""
        # Those that an interrupted search left behind go on where they were.
        running = study.get_trials(states=[library().trial.TrialState.RUNNING])
        active = [library().trial.Trial(study, trial._trial_id) for trial in running]
        while True:
            free = min(self.batch_size - len(active), self.n_trials - len(study.get_trials(deepcopy=False)))
            new = [trial for _ in range(free) if (trial := propose(study, space, self.seed)) is not None]
            if len(new) < free:
                log.info("all combinations have been tried")
            if not (active or new):
                return
            active = self.judge(study, [*active, *new], fixed)

    def judge(self, study: Any, active: Sequence[Any], fixed: list[str]) -> list[Any]:
        """Train trials to their next rungs, tell the study what came of those that end there, and return the others."""
        state = library().trial.TrialState
        jobs = {trial.number: _overrides(trial, fixed) for trial in active}
        before = study.get_trials(deepcopy=False)
        rungs = {number: len(before[number].intermediate_values) for number in jobs}
        done = self.launch({number: self.shortened(job, number, rungs[number]) for number, job in jobs.items()})
        self.returns |= done
        alive = []
        for trial in active:
            result, folder = done[trial.number], place(self.compose(jobs[trial.number], trial.number))
            if result.status != JobStatus.FAILED:
                if result.return_value is None:
                    raise UserError(_unmeasured(result.cfg))
                trial.report(float(result.return_value), rungs[trial.number] + 1)
                alive.append((trial, rungs[trial.number] + 1, float(result.return_value), folder))
            elif results.read(folder).status == results.FAILED:
                # One whose process was lost is left running: the next search in this folder goes on with it.
                study.tell(trial, state=state.FAIL)
        # All have reported by now, so that each is judged beside the others of its batch and all before it.
        going_on = []
        for trial, rung, value, folder in alive:
            if rung >= self.rungs:
                study.tell(trial, value)
            elif promising(value, _at(study, rung)):
                going_on.append(trial)
            else:
                results.mark(folder, results.PRUNED)
                study.tell(trial, state=state.PRUNED)
        return going_on

    def shortened(self, overrides: list[str], number: int, rung: int) -> list[str]:
        """The overrides of job `number` up to its next rung."""
        chosen = list(overrides)
        trainer = self.compose(chosen, number).trainer
        unit = "updates" if "updates" in trainer else "env_steps"
        annealed = f"anneal_{unit.removeprefix('env_')}"
        if annealed in trainer and trainer[annealed] is None:
            # All steps: of the whole trial, not of those up to a rung.
            chosen.append(f"trainer.{annealed}={trainer[unit]}")
        if rung + 1 >= self.rungs:
            return chosen
        others = [one for one in chosen if not one.startswith(f"trainer.{unit}=")]
        return [*others, f"trainer.{unit}={max(1, trainer[unit] // HALVING ** (self.rungs - 1 - rung))}"]

    def launch(self, jobs: Mapping[int, list[str]]) -> dict[int, JobReturn]:
        """Train jobs under their own numbers: together if the launcher can, else one after another."""
        if isinstance(self.launcher, Fused):
            return dict(zip(jobs, self.launcher.launch_numbered(jobs), strict=True))
        return {number: self.launcher.launch([job], initial_job_idx=number)[0] for number, job in jobs.items()}

    def show(self, study: Any, fixed: list[str], folder: Path) -> bool:
        """The table of all trials, and the best as a command; True if any failed."""
        optuna = library()
        trials = study.get_trials(deepcopy=False)
        jobs = [_overrides(trial, fixed) for trial in trials]
        places = [place(self.compose(job, number)) for number, job in enumerate(jobs)]
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
