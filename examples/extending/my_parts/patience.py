"""A callback: it counts the evaluations since the best one, and says once when there are too many."""

from collections.abc import Sequence
from typing import Any

from awr_exp.training.callbacks import Callback


class Patience(Callback):
    """Logs `eval/since_best`; limit: evaluations without a better one after which it warns.

    interval: steps between its looks, which should be those between evaluations.
    """

    def __init__(self, interval: int, limit: int) -> None:
        self.interval, self.limit = interval, limit
        self.best: list[float] = []
        self.since: list[int] = []

    def begin(self, trainer: Any) -> None:
        self.best = self.best or [float("-inf")] * len(trainer.runs)
        self.since = self.since or [0] * len(trainer.runs)

    def call(self, trainer: Any) -> None:
        for member, run in enumerate(trainer.runs):
            self.since[member] = 0 if run.best > self.best[member] else self.since[member] + 1
            self.best[member] = run.best
            trainer.log(member, {"eval/since_best": float(self.since[member])})
            if self.since[member] >= self.limit:
                trainer.warn(member, "patience", f"no evaluation was better in the last {self.since[member]}")

    def metadata(self, member: int) -> dict[str, Any]:
        """What a checkpoint keeps, so that a run that is resumed goes on counting."""
        return {"patience": [self.best[member], self.since[member]]}

    def load(self, metadata: Sequence[dict[str, Any]]) -> None:
        self.best, self.since = map(list, zip(*(fact["patience"] for fact in metadata), strict=True))
