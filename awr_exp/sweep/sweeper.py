"""The sweeper: Hydra's own grid, with every job checked before the first one trains, and a table at the end."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from awr_exp import messages, ranges, results, run_folder, settings
from awr_exp.errors import UserError
from awr_exp.ranges import Count, Options
from awr_exp.reading import check_links
from awr_exp.sweep import closing
from awr_exp.sweep.job import composed, place, task
from awr_exp.sweep.launcher import Fused
from awr_exp.sweep.memory import Memory
from awr_exp.training.progress import heard

OWN_FOLDER = "leave out hydra.sweep.subdir, or let it differ, as with ${hydra.job.num}"


class Grid(BasicSweeper):
    """All combinations of the values given; max_batch_size: of jobs that are launched at once, None for all."""

    # Hydra sets them before it sweeps.
    config: Any
    hydra_context: Any
    launcher: Any

    def __init__(self, max_batch_size: Count | None = None, params: Options | None = None) -> None:
        super().__init__(max_batch_size, dict(params or {}))

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        memory: Any = Memory(hydra_context.config_loader)
        context = HydraContext(memory, hydra_context.callbacks)
        try:
            run_folder.settle(config)
        except UserError as error:
            sys.exit(f"error: {error}")
        super().setup(hydra_context=context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        """Train all jobs and show them; ends the program with one line if something is wrong with any of them."""
        heard()
        try:
            ranges.check_all("hydra.sweeper", ranges.arguments(type(self)), vars(self))
            returns, failed = self.train(arguments, Path(self.config.hydra.sweep.dir))
        except UserError as error:
            sys.exit(f"error: {error}")
        if failed:
            sys.exit(1)
        return returns

    def train(self, arguments: list[str], folder: Path) -> tuple[list[JobReturn], bool]:
        """What came of the jobs, and whether any failed. Raises UserError if something is wrong with the sweep."""
        jobs = self.jobs(arguments)
        places = self.check(jobs, folder)
        self.check_launcher()
        for number, (overrides, own) in enumerate(zip(jobs, places, strict=True)):
            with explained(f"job {number} ({' '.join(overrides)}): "):
                check_links(own)
                if results.begun(own):
                    run_folder.check_kept(own, overrides, task(self.compose(overrides, number)))
        self.make(folder)
        returns: list[JobReturn] = []
        with results.file_lock(folder):
            try:
                for batch in self.split_overrides_to_chunks(jobs, self.max_batch_size):
                    returns += self.launcher.launch(batch, initial_job_idx=len(returns))
            except UserError:
                # The launcher cannot train: there is nothing to show.
                raise
            except BaseException:
                closing.show(folder, jobs, places, dict(enumerate(returns)))
                raise
            return returns, closing.show(folder, jobs, places, dict(enumerate(returns)))

    def check_launcher(self) -> None:
        """Raises UserError if our own launcher knows beforehand that it cannot train."""
        if isinstance(self.launcher, Fused):
            self.launcher.check()

    def make(self, folder: Path) -> None:
        """Make the sweep's folder and keep its configuration there. Raises UserError if it cannot be written."""
        check_links(folder)
        run_folder.make_folder(folder, "hydra.sweep.dir")
        OmegaConf.save(self.config, folder / "multirun.yaml")

    def parse(self, arguments: Sequence[str]) -> list[Override]:
        """The overrides of a sweep, those of its file included."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides([*self._parse_config(), *arguments])

    def jobs(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of each job. Raises UserError if there is none."""
        with explained():
            batches = self.split_arguments(self.parse(arguments), None)
        jobs = [job for batch in batches for job in batch]
        if not jobs:
            raise UserError("the sweep is empty: give at least one value, such as agent.beta=0.05,0.3,1.0")
        return jobs

    def check(self, jobs: Sequence[list[str]], folder: Path) -> list[Path]:
        """The folders of the jobs. Raises UserError that names the first whose configuration is wrong."""
        resume = self.config.sweep.resume
        if resume and not (folder / "multirun.yaml").exists():
            raise UserError(f"{resume} is not the folder of a sweep: it has no multirun.yaml")
        places: dict[Path, int] = {}
        for number, overrides in enumerate(jobs):
            with explained(f"job {number} ({' '.join(overrides)}): "):
                cfg = self.compose(overrides, number)
                if cfg.resume is not None:
                    raise UserError("resume continues a single run; a sweep goes on with sweep.resume=<its folder>")
                settings.check(task(cfg), cfg.hydra.overrides.task)
                if place(cfg) in places:
                    raise UserError(f"{place(cfg)} is the folder of job {places[place(cfg)]}, too: {OWN_FOLDER}")
                places[place(cfg)] = number
        return list(places)

    def compose(self, overrides: list[str], number: int) -> DictConfig:
        """A job's configuration, Hydra's part included."""
        return composed(self.hydra_context, self.config, overrides, number)

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Done by `check`, for all batches."""


@contextmanager
def explained(job: str = "") -> Iterator[None]:
    """Raises UserError for whatever is wrong inside; job: which it is wrong with, as the beginning of the line."""
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        reason = error if isinstance(error, UserError) else messages.said(error)
        hint = "; search with hydra/sweeper=optuna" if "INTERVAL" in str(error) else ""
        raise UserError(f"{job}{reason}{hint}") from None
