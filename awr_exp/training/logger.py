"""What a logger is, and several as one."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Logger(Protocol):
    """Takes metrics while a run lasts and what is left of it at the end. Neither call raises."""

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics as of this update. `env_steps` among them counts environment steps (else 0)."""

    def finish(self, summary: Mapping[str, Any], files: Mapping[str, Path], exit_code: int = 0) -> None:
        """Close. `files` may hold `curves` (a PNG) and `checkpoint` (the folder of checkpoints)."""


@runtime_checkable
class Published(Protocol):
    """A logger whose run has a name and a page elsewhere, as on W&B."""

    id: str | None
    url: str | None


@runtime_checkable
class TakesFilms(Protocol):
    """A logger that shows films, too. The call does not raise either."""

    def film(self, update: int, path: Path) -> None:
        """Show the mp4 that was taken at this update."""


def film(logger: Any, update: int, path: Path) -> None:
    """Give a film to a logger, if it takes any."""
    if isinstance(logger, TakesFilms):
        logger.film(update, path)


class Many:
    """Several loggers as one."""

    def __init__(self, loggers: Iterable[Logger]) -> None:
        self.loggers = tuple(loggers)

    @property
    def id(self) -> str | None:
        """The W&B run's id, which a checkpoint stores so that resuming continues it. None without W&B."""
        return next((logger.id for logger in self.loggers if isinstance(logger, Published)), None)

    @property
    def url(self) -> str | None:
        """The run's page on W&B. None without W&B, and offline."""
        return next((logger.url for logger in self.loggers if isinstance(logger, Published)), None)

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        for logger in self.loggers:
            logger.log(update, metrics)

    def film(self, update: int, path: Path) -> None:
        for logger in self.loggers:
            film(logger, update, path)

    def finish(self, summary: Mapping[str, Any], files: Mapping[str, Path], exit_code: int = 0) -> None:
        for logger in self.loggers:
            logger.finish(summary, files, exit_code)
