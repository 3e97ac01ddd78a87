"""Data sets: in, out, and as flat transitions."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from awr_exp.data.arrays import from_arrays as from_arrays


def __getattr__(name: str) -> Any:
    """`from_arrays` comes with all that reads and writes data sets, which most modules beside it do without."""
    if name == "from_arrays":
        from awr_exp.data.arrays import from_arrays

        return from_arrays
    raise AttributeError(f"module {__name__} has no attribute {name}")
