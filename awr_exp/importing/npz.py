"""NumPy's files of several arrays: an episode, or a log of several."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from awr_exp.errors import UserError
from awr_exp.importing.table import Chunk, Table


def opened(path: Path, stack: ExitStack) -> Table:
    """The table of an npz file, whose arrays are its columns. Nothing that is pickled is read."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as start:
            if start.read(6) == b"\x93NUMPY":
                raise UserError(f"{path} is a single array, which has no name: save all of them by numpy.savez")
        raise zipfile.BadZipFile("it is no archive of arrays")
    file: Any = np.load(path, allow_pickle=False)
    stack.enter_context(file)
    headers = {name: _header(file, name) for name in file.files}

    def chunks(names: Sequence[str], position: int, row: int) -> Iterator[Chunk]:
        for name in names:
            if headers[name][0].hasobject:
                raise UserError(
                    f"{path}: {name} holds Python objects, not numbers; save it as a plain array of numbers"
                )
        if not position:
            yield {name: file[name] for name in names}, 1

    return Table(path, {name: shape[1:] for name, (_, shape) in headers.items() if shape}, 1, chunks)


def _header(file: Any, name: str) -> tuple[Any, tuple[int, ...]]:
    """Type and shape of an array, without reading it."""
    with file.zip.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return dtype, shape
