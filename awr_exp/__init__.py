"""Config-composed experiments with advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177)."""

from typing import Any

__version__ = "0.1.0"


def load(folder: Any, **options: Any) -> Any:
    """The trained policy of a run folder; see :func:`awr_exp.policy.load`."""
    from awr_exp.policy import load

    return load(folder, **options)
