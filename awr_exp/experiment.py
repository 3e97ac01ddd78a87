"""From configurations to trained runs: data, environment, agent, loggers and trainer are built and put together here.

A single run and the jobs of a sweep that train together are the same: runs, each of which is a member of one agent.
"""

import logging
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from awr_exp import origin, results
from awr_exp.agents.agent import Agent
from awr_exp.building import beside, contracts, stacking
from awr_exp.building.build import build, check_targets
from awr_exp.building.takeover import Found, check_same, forget_others_moments, take_over
from awr_exp.building.task import check_memory, open_task
from awr_exp.data.holdout import split
from awr_exp.data.transitions import Transitions
from awr_exp.envs.build import collecting, task
from awr_exp.errors import UserError
from awr_exp.metadata import policy_metadata
from awr_exp.results import Outcome
from awr_exp.surroundings import usual
from awr_exp.training import accelerate, checkpoint, closing, memory
from awr_exp.training.examine import Examine
from awr_exp.training.run import Run, side_by_side
from awr_exp.types import OWN_UNIT

log = logging.getLogger(__name__)

Config = dict[str, Any]


def train(runs: Sequence[Run]) -> list[Outcome]:
    """Train runs of checked configurations as the members of one agent, each in its folder.

    They may differ in what `stacking.group_key` leaves out, and go on from where their folders are, which must be the
    same place (see `reached`). One whose recorder cannot be built, or whose offline part fails, fails alone. Raises
    UserError for what is wrong with all of them.
    """
    with usual(), memory.exhausted(), ExitStack() as stack:
        for run in runs:
            stack.enter_context(results.file_lock(run.folder))
        try:
            Experiment(runs).train()
        except SystemExit as stop:
            if stop.code == 128 + signal.SIGUSR2:
                # Everything is saved. Now the scheduler, whose notice this was, may queue the job again.
                signal.raise_signal(signal.SIGUSR2)
            raise
    return [run.outcome for run in runs]


class Experiment:
    """What runs that train together share: data, environment and device, of the first one's configuration."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.config = runs, runs[0].config
        for run in runs:
            check_targets(run.config)
        self.device = accelerate.start(self.config["device"], self.config["threads"])
        self.data, self.make_env, self.spec = open_task(self.config, self.device)
        self.held_out = self._hold_out()
        check_memory(self.config, self.spec, self.data, self.device)

    def _hold_out(self) -> Transitions | None:
        """Take the episodes that are held out from the data, where some are."""
        judge = beside.held_out(self.config)
        if judge is None or not (judge.always or self.make_env is None):
            return None
        if self.data is None:
            raise UserError("holdout=episodes needs a data set: leave it out, or choose dataset=...")
        if self.data.info.episodes == 1 and not judge.always:
            log.warning("there is a single episode: none is held out, and nothing judges the policy")
            return None
        self.data, held_out = split(self.data, judge.share, judge.seed)
        log.info("%d episodes are held out, and %d are learnt from", held_out.info.episodes, self.data.info.episodes)
        return held_out

    @property
    def standing(self) -> list[Run]:
        """The runs that nothing has ended so far."""
        return [run for run in self.runs if run.error is None]

    def train(self) -> None:
        """Train the baseline, the part on data alone and the agent, as far as the configuration has them."""
        self._add_recorders()
        if not self.standing:
            return
        trainer = {name: value for name, value in self.config["trainer"].items() if name != "pretrain"}
        pretrain = self.config["trainer"].get("pretrain")
        # A run that has begun needs nothing of what came before it.
        begins = pretrain and not all(checkpoint.latest(run.folder, tensors=False) for run in self.standing)
        if begins:
            self._rehearse(trainer)
        for run in self.standing:
            run.levels = {"dataset/return_mean": self.data.info.return_mean} if self.data else {}
        baselines = self._train_baseline(pretrain or trainer) if self.config.get("baseline") else []
        begin = self._train_on_data(pretrain) if begins else []
        if self.standing:
            self._fit("agent", trainer, self.standing, "learning", begin)
            if not self.runs[0].name and self.runs[0].outcome.error is None:
                closing.show(self.data and self.data.info, self.runs[0], baselines[0] if baselines else None)

    def _train_baseline(self, trainer: Config) -> list[Run]:
        baselines = [run.part("baseline") for run in self.standing]
        self._fit("baseline", trainer, baselines, "baseline")
        for run, baseline in zip(self.standing, baselines, strict=True):
            if baseline.outcome.error is None and "eval/return_mean" in baseline.latest:
                run.levels["baseline/return_mean"] = baseline.latest["eval/return_mean"]
        return baselines

    def _train_on_data(self, trainer: Config) -> list[Found]:
        """The checkpoint that each run still standing begins with: its offline part's, or another run's."""
        if self.config["resume_policy"]:
            return [_found(Path(self.config["resume_policy"])) for _ in self.standing]
        parts = [run.part("offline") for run in self.standing]
        self._fit("agent", trainer, parts, "offline")
        for run, part in zip(self.standing, parts, strict=True):
            # What one did not learn to the end is nothing to go on from.
            if error := part.outcome.error:
                run.error, run.latest = error, part.latest
                content = {"status": results.FAILED, "error": str(error), "update": 0, "metrics": dict(part.latest)}
                results.write(run.folder, content)
        return [_found(part.folder) for part in parts if part.outcome.error is None]

    def _fit(self, name: str, node: Config, runs: Sequence[Run], title: str, begin: Sequence[Found] = ()) -> None:
        """Train a part of the runs' configurations by a trainer; begin: checkpoints of other runs to begin with."""
        own = title == "learning"
        best_of = self.config["policy"]["best_of"] if own and self.config.get("policy") else 1
        done = [checkpoint.latest(run.folder, tensors=False) for run in runs]
        before = [found[1] for found in done if found]
        nodes = [run.config[name] for run in runs]
        agent = build(stacking.stack(nodes), spec=self.spec, seeds=[r.config["seed"] for r in runs], device=self.device)
        contracts.check_made("agent", nodes[0], agent, Agent)
        for run, one in zip(runs, nodes, strict=True):
            unit = self.data.info.reward_unit if self.data else OWN_UNIT
            run.metadata = policy_metadata(self.spec, one, unit) | agent.facts | ({"best_of": best_of} if own else {})
        metadata = [run.metadata for run in runs]
        resumes = all(done)
        if resumes:
            check_same("the run to resume", before, metadata)
        if begin:
            take_over(agent, metadata, begin)
        elif self.data:
            agent.fit_normalizer(*self.data.obs_statistics())
        # Runs get their loggers later: one that cannot be built, or resumed, should not begin a record of itself.
        callbacks = [*beside.callbacks(self.config), Examine()] if own else []
        if title != "offline":
            callbacks += beside.callbacks(self.config, "evaluate")
            callbacks += [beside.held_out(self.config, data=self.held_out)] if self.held_out else []
        trainer = self._trainer(node, agent, runs, title=title, callbacks=callbacks, best_of=best_of)
        try:
            if resumes:
                trainer.resume()
                forget_others_moments(agent, before, metadata)
            side_by_side(partial(_open_loggers, own=own), list(zip(runs, done, strict=True)))
        except BaseException:
            trainer.close()
            raise
        for run in runs:
            if run.levels and run.logger and not resumes:
                run.logger.log(0, run.levels)
        closing.run(trainer)

    def _trainer(self, node: Config, agent: Agent, runs: Sequence[Run], **options: Any) -> Any:
        data = {"data": self.data} if self.data else {}
        return build(node, agent=agent, make_env=self.make_env, runs=runs, **data, **options)

    def _rehearse(self, trainer: Config) -> None:
        """Build a small one of a trainer, so that what is wrong with it is said before something else is trained."""
        agent = build(self.config["agent"], spec=self.spec, seeds=[self.config["seed"]], device=self.device)
        small = trainer | {"workers": min(1, trainer["workers"]), "replay_size": 1, "eval_episodes": 1}
        self._trainer(small, agent, [Run(Path())]).close()

    def _add_recorders(self) -> None:
        """Give each run its recorder, where something is recorded; a run whose recorder cannot be built ends."""
        node = self.config.get("recorder") or {}
        if node.get("dataset_id") is None or self.make_env is None:
            if idle := [name for name in ("last_steps", "checkpoints") if node.get(name) is not None]:
                raise UserError(f"recorder.{idle[0]} is of a data set: give it a recorder.dataset_id")
            return
        place = collecting(self.make_env)
        spec, envs = task(place, as_played=True), self.config["trainer"]["envs"]
        for run in self.runs:
            with run.speaking():
                try:
                    run.recorder = build(run.config["recorder"], folder=run.folder, spec=spec, envs=envs)
                except UserError as error:
                    log.error("error: %s", error)
                    run.error = error


def _open_loggers(pair: tuple[Run, Found | None], own: bool) -> None:
    """Give a run its loggers, from its newest checkpoint on, and note where it comes from."""
    run, found = pair
    with run.speaking():
        run.logger = logger = beside.loggers(run, found, own)
    run.metadata["run_id"] = logger.id
    if own:
        origin.note(run.folder, logger.url)


def reached(folder: Path) -> tuple[tuple[int, int], ...]:
    """Update and step of the newest checkpoints of a run, its baseline and its offline part; (-1, -1) where is none."""
    places = (folder, folder / "baseline", folder / "offline")
    found = [checkpoint.latest(place, tensors=False) for place in places]
    return tuple((one[1]["update"], one[1].get("step", 0)) if one else (-1, -1) for one in found)


def _found(folder: Path) -> Found:
    """The best checkpoint of a run."""
    found = checkpoint.best(folder)
    if found is None:
        raise UserError(f"resume_policy={folder} is not the folder of a run with a checkpoint")
    return found
