"""Columns of Arrow as NumPy has them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.errors import UserError


@contextmanager
def lacking(path: Path) -> Iterator[None]:
    """Raises UserError where pyarrow, which is imported inside, is not there to read the file."""
    try:
        yield
    except ImportError:
        raise UserError(f"{path} needs pyarrow to be read: pip install 'awr-exp[tables]'") from None


def numpy_of(column: Any, place: Callable[[int], str]) -> NDArray[Any]:
    """A column as an array [n], or [n, width] of lists: numbers with nan where some are missing, times, or texts.

    place: names a row of it. Raises UserError where lists have several lengths.
    """
    from pyarrow import compute, types

    kind = column.type
    if types.is_dictionary(kind):
        return numpy_of(column.cast(kind.value_type), place)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        widths = compute.list_value_length(column).to_numpy(zero_copy_only=False) if len(column) else np.zeros(0)
        if (widths != widths[:1]).any():
            row = int((widths != widths[0]).argmax())
            here = "is empty" if np.isnan(widths[row]) else f"has {widths[row]:g} numbers"
            raise UserError(f"{place(row)} {here}, and rows before it have {widths[0]:g} numbers")
        inner = numpy_of(compute.list_flatten(column), place)
        return inner.reshape(len(column), -1)
    if types.is_time(kind):
        return np.asarray(column.cast(f"int{kind.bit_width}")).astype(f"timedelta64[{kind.unit}]")
    if types.is_null(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        column = column.cast("float64")
    return np.asarray(column.to_numpy(zero_copy_only=False))
