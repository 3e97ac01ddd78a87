"""Tables as text: one line names the columns, and each other one is a step."""

import csv
import gzip
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from awr_exp.errors import UserError, first_line
from awr_exp.importing.arrow import lacking, numpy_of
from awr_exp.importing.table import Chunk, Table, placed

BLOCK = 2**23
"""Bytes that are read at once."""
LONGEST = 2**24
"""Bytes that a line may have."""
DELIMITERS = ",;\t|"
DECIMAL_COMMA = re.compile(rb'(?:^|[;\t|"])[ +-]*\d+,\d+(?:$|[;\t|"\r])', re.M)
"""A number whose decimal point is a comma, between other delimiters."""
TRUE, FALSE = (
    [write(word) for word in words for write in (str.lower, str.title, str.upper)]
    for words in (("1", "true", "yes", "on", "t", "y"), ("0", "false", "no", "off", "f", "n"))
)
"""What stands for 1 and 0."""


def opened(path: Path, stack: ExitStack) -> Table:
    """The table of a CSV file. Raises UserError where its first line does not name columns."""
    packed = path.suffix.lower() == ".gz"
    file: Any = stack.enter_context((gzip.open if packed else open)(path, "rb"))
    line = file.readline(LONGEST)
    try:
        text = line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8: save it as that") from None
    if "\r" in text:
        raise UserError(f"{path} has lines that end in a carriage return alone: save it with other line ends")
    delimiter = max(DELIMITERS, key=text.count)
    names = [name.strip() for name in next(csv.reader([text], delimiter=delimiter), [])]
    _check_names(path, names)
    comma = delimiter != "," and DECIMAL_COMMA.search(file.read(BLOCK)) is not None
    reader = _Reader(path, file, names, delimiter, "," if comma else ".", len(line))
    return Table(path, dict.fromkeys(filter(None, names), ()), _size(path, packed), reader.chunks)


def _size(path: Path, packed: bool) -> int:
    """The bytes of the text; of a packed one its last four bytes say it, up to multiples of 4 GB."""
    if not packed:
        return path.stat().st_size
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return max(1, int.from_bytes(file.read(), "little"))


def _check_names(path: Path, names: list[str]) -> None:
    if not any(names):
        raise UserError(f"{path} is empty: its first line must name the columns")
    if all(map(_is_number, names)):
        raise UserError(f"{path} has no header: its first line must name the columns, such as q_0,q_1,a_0,reward,done")
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise UserError(f"{path} has two columns '{twice}': give each a name of its own")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Reader:
    """Reads blocks of whole lines, so that a file of any size takes the memory of one."""

    def __init__(self, path: Path, file: Any, names: list[str], delimiter: str, point: str, begin: int) -> None:
        self.path, self.file, self.names, self.begin = path, file, names, begin
        self.delimiter, self.point = delimiter, point

    def chunks(self, names: Sequence[str], position: int, row: int) -> Iterator[Chunk]:
        self.file.seek(max(position, self.begin))
        while block := self.file.read(BLOCK):
            block += self._rest_of_line(block)
            if block.strip():
                table = self._parsed(block, names, row)
                yield {name: numpy_of(table[name], placed(self.path, name, row)) for name in names}, self.file.tell()
                row += len(table)

    def _rest_of_line(self, block: bytes) -> bytes:
        rest: bytes = b"" if block.endswith(b"\n") else self.file.readline(LONGEST)
        if len(rest) == LONGEST:
            raise UserError(f"{self.path} has a line of more than {LONGEST >> 20} MB: it is no CSV")
        return rest

    def _parsed(self, block: bytes, names: Sequence[str], row: int) -> Any:
        """The columns of a block of lines. Raises UserError, which names the row, for one of another length."""
        with lacking(self.path):
            import pyarrow
            from pyarrow import csv as arrow
        uneven = []

        def refuse(bad: Any) -> str:
            uneven.append(bad)
            return "error"

        try:
            return arrow.read_csv(
                pyarrow.BufferReader(block),
                arrow.ReadOptions(column_names=self.names, use_threads=False, block_size=len(block) + 1),
                arrow.ParseOptions(delimiter=self.delimiter, invalid_row_handler=refuse),
                arrow.ConvertOptions(
                    include_columns=list(names), decimal_point=self.point, true_values=TRUE, false_values=FALSE
                ),
            )
        except pyarrow.ArrowInvalid as error:
            if not uneven:
                raise UserError(f"{self.path}, after row {row}, cannot be read: {first_line(error)}") from None
            (bad,) = uneven[:1]
            raise UserError(
                f"{self.path}, row {row + bad.number} has {bad.actual_columns} columns, and the header names "
                f"{bad.expected_columns}: complete or remove the row"
            ) from None
