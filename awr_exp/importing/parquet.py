"""Tables of Parquet."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from awr_exp.importing.arrow import lacking, numpy_of
from awr_exp.importing.table import Chunk, Table, placed

ROWS = 65_536
"""Rows that are read at once."""


def opened(path: Path, stack: ExitStack) -> Table:
    """The table of a Parquet file; what is neither a number, a text nor a list of numbers is no column of it."""
    with lacking(path):
        from pyarrow import parquet
    file = stack.enter_context(parquet.ParquetFile(path))
    shapes = {field.name: shape for field in file.schema_arrow if (shape := _shape(file, field)) is not None}
    return Table(path, shapes, file.metadata.num_rows, lambda *given: _chunks(path, file, *given))


def _shape(file: Any, field: Any) -> tuple[int, ...] | None:
    """The shape of one row of a column; None where it is of another kind."""
    from pyarrow import types

    kind = field.type
    if types.is_fixed_size_list(kind):
        return None if types.is_nested(kind.value_type) else (kind.list_size,)
    if types.is_list(kind) or types.is_large_list(kind):
        if types.is_nested(kind.value_type):
            return None
        first = next(file.iter_batches(1, columns=[field.name]), None)
        return (len(first[0][0] or ()),) if first is not None and len(first) else (0,)
    return None if types.is_nested(kind) else ()


def _chunks(path: Path, file: Any, names: Sequence[str], position: int, row: int) -> Iterator[Chunk]:
    end = 0
    for group in range(file.num_row_groups):
        begin, end = end, end + file.metadata.row_group(group).num_rows
        if end <= position:
            continue
        for batch in file.iter_batches(ROWS, row_groups=[group], columns=list(names)):
            if begin >= position:
                yield {name: numpy_of(batch[name], placed(path, name, begin)) for name in names}, begin + len(batch)
            begin += len(batch)
