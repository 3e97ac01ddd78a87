"""A group of jobs that train together: all that another process or machine has to know of them."""

import logging
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra.core.utils import configure_log
from omegaconf import DictConfig

from awr_exp import results
from awr_exp.errors import UserError
from awr_exp.results import Outcome
from awr_exp.training.progress import Logs, heard

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Group:
    """The jobs of a group, by their checked configurations, their folders and what each is called.

    logging, verbose: as Hydra's job_logging.
    """

    contents: Sequence[dict[str, Any]]
    folders: Sequence[Path]
    names: Sequence[str]
    logging: DictConfig
    verbose: Any

    def train(self) -> list[Outcome]:
        """Train the jobs, in their order; never raises but to exit.

        What is finished, or has come some way in an earlier attempt, is not done again.
        """
        # Here, for a process that only ships groups need not import torch.
        from awr_exp import experiment

        _allow_many_files()
        outcomes: dict[int, Outcome] = {}
        reached: dict[tuple[tuple[int, int], ...], list[int]] = {}
        with self._logs():
            for number, folder in enumerate(self.folders):
                before = results.read(folder)
                if results.finished(before, self.contents[number]):
                    outcomes[number] = Outcome(dict(before.metrics))
                    continue
                try:
                    # The members of one model go on from one place.
                    reached.setdefault(experiment.reached(folder), []).append(number)
                except UserError as error:
                    outcomes[number] = Outcome({}, error)
            for members in reached.values():
                outcomes |= zip(members, self._train(members), strict=True)
        return [outcomes[number] for number in range(len(self.folders))]

    def _train(self, members: Sequence[int]) -> list[Outcome]:
        from awr_exp import experiment
        from awr_exp.building import task
        from awr_exp.training.run import Run

        runs = [Run(self.folders[number], self.names[number], self.contents[number]) for number in members]
        log.info("training %s", shortened([run.name for run in runs]))

        def train() -> list[Outcome]:
            parts = [runs[part] for part in task.parts([run.config for run in runs])]
            if len(runs) > (most := _most_members()):
                log.warning("so few files may be open here (ulimit -n) that at most %d jobs train at a time", most)
            parts = [list(part) for whole in parts for part in divided([whole], 1, most)]
            return [outcome for part in parts for outcome in _outcomes(partial(experiment.train, part), len(part))]

        return _outcomes(train, len(runs))

    @contextmanager
    def _logs(self) -> Iterator[None]:
        """The terminal for all; for each its own log file with what is said of it and of nobody in particular."""
        configure_log(self.logging, self.verbose)
        heard()
        root, logs = logging.getLogger(), list[Logs]()
        for first in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
            root.removeHandler(first)
            first.close()
            # What is left of the files that may be open is for those that train.
            kind = logging.FileHandler if len(self.folders) <= _most_members() else _Reopening
            files = dict[Path, logging.Handler]()
            for folder in self.folders:
                try:
                    file = kind(folder / Path(first.baseFilename).name, encoding=first.encoding)
                except OSError as error:
                    log.warning("%s has no log: %s", folder, error.strerror or error)
                    continue
                file.setFormatter(first.formatter)
                files[folder] = file
            logs.append(Logs(files))
            root.addHandler(logs[-1])
        try:
            yield
        finally:
            for each in logs:
                root.removeHandler(each)
                each.close()


def _outcomes(train: Callable[[], list[Outcome]], count: int) -> list[Outcome]:
    """What comes of `count` jobs that train together; what is raised becomes the outcome of all of them."""
    try:
        return train()
    except UserError as error:
        log.error("error: %s", error)
        failure: Exception = error
    except Exception as error:
        log.exception("these jobs failed; please report it if the reason is not yours")
        # As a text: an exception of a library may not survive the way back to another process.
        failure = RuntimeError(f"{type(error).__name__}: {error}")
    return [Outcome({}, failure)] * count


class _Reopening(logging.FileHandler):
    """A log that is open only while something is written, and at first, to see whether it can be."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        self.close()


FILES, SPARE = 5, 60
"""Files that a member has open, its lock, its log and those of W&B's process among them; and those of the process."""


def _most_members() -> int:
    """How many members may train at once, for the files that may be open."""
    return max(1, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE) // FILES)


def _allow_many_files() -> None:
    """Allow as many open files as there may be: 1024 are a usual limit, and a higher one is for the asking."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


ENDS = 3
"""Names that are said at the beginning and at the end of many."""


def shortened(names: Sequence[str]) -> str:
    """The names of jobs in a line; of many their number, the first and the last."""
    if len(names) <= 4 * ENDS:
        return "; ".join(names)
    return f"{len(names)} jobs: {'; '.join([*names[:ENDS], '...', *names[-ENDS:]])}"


def divided(groups: Sequence[Sequence[Any]], workers: int, most: int | None) -> list[Sequence[Any]]:
    """Groups in pieces of at most `most` members, and at least as many pieces as workers where there are members."""
    members = sum(map(len, groups))
    share = -(-members // max(1, workers))
    pieces = []
    for group in groups:
        size = min(len(group), share, most or len(group))
        count = -(-len(group) // size)
        # Evenly: members of a smaller last piece would have the machine to themselves.
        ends = [round(part * len(group) / count) for part in range(count + 1)]
        pieces += [group[start:stop] for start, stop in pairwise(ends)]
    return pieces
