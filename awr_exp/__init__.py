"""Config-composed experiments with advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awr_exp.policy import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`load` comes with torch, which the command line does without until it trains."""
    if name == "load":
        from awr_exp.policy import load

        return load
    raise AttributeError(f"module {__name__} has no attribute {name}")
