"""Config-composed experiments with advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177)."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # It would bring torch, which the command line does without until it trains.
    from awr_exp.policy import TrainedPolicy

__version__ = "0.1.0"


def load(path: str | Path, which: str = "best", seed: int = 0, trust: Iterable[str] = ()) -> "TrainedPolicy":
    """The trained policy of a run folder or of one checkpoint file, as a function of observations.

        policy = awr_exp.load("outputs/runs/<date>/<time>")
        action = policy(obs)

    Observations and actions are those of the environment itself; see `awr_exp.policy.TrainedPolicy`.
    which: "best" by evaluation (the latest if nothing was evaluated) or "latest"; seed: of sampled actions, for
    `policy(obs, deterministic=False)`; trust: dotted names of own network or head classes that the checkpoint may
    call. Raises `awr_exp.errors.UserError` if there is no readable checkpoint, or if it asks for code that is neither
    ours nor trusted.
    """
    from awr_exp.policy import load

    return load(path, which, seed, trust)
