"""Rows that are in a file, as a tensor: the system reads what is used of them, and forgets it when memory is short."""

import ctypes
import math
import mmap
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEVICE_SHARE = 0.8
"""Share of a GPU's free memory that rows may take; more stay on the host and stream."""
PART = 2**27
"""Bytes of rows in a file that are read over and over before the next ones are."""
RANDOM, WILL_NEED = (getattr(mmap, name, None) for name in ("MADV_RANDOM", "MADV_WILLNEED"))


COPY_ON_WRITE = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""Torch wants writable memory, and the file stays as it is; no memory is set aside for what nobody writes."""

_maps: list[range] = []
"""The addresses of rows that are read at random. Whatever else comes to lie there later is not harmed by advice."""


def mapped(file: Path) -> Tensor:
    """The rows in a NumPy file. Raises ValueError for what is none, and OSError where it cannot be read."""
    with file.open("rb") as opened:
        if np.lib.format.read_magic(opened) != (1, 0):
            raise ValueError("it is of another version of NumPy's format")
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(opened)
        if by_columns or dtype != np.float32 or len(shape) != 2:
            raise ValueError("it has another form")
        buffer = mmap.mmap(opened.fileno(), 0, COPY_ON_WRITE, mmap.PROT_READ | mmap.PROT_WRITE)
        begin = opened.tell()
    return torch.from_numpy(np.frombuffer(buffer, np.float32, math.prod(shape), begin).reshape(shape))


def read_at_random(rows: Tensor) -> Tensor:
    """The rows, which from now on are read one here and one there: their neighbours would be read in vain."""
    _advise(rows, RANDOM)
    _maps.append(range(rows.data_ptr(), rows.data_ptr() + rows.numel() * rows.element_size()))
    return rows


def is_read_at_random(rows: Tensor) -> bool:
    """Whether rows are in a file, and were said to be read so."""
    return any(rows.data_ptr() in one for one in _maps)


def ask_for(rows: Tensor, places: Tensor) -> None:
    """Have the system read those of mapped rows [n, W] that are at places [...], and each one below.

    A disk reads many at once in a fraction of the time that it takes for one after another.
    """
    call, begin = _madvise(), rows.data_ptr()
    if call is None or WILL_NEED is None:
        return
    row = rows.stride(0) * rows.element_size()
    for page in np.unique((begin + places.flatten().cpu().numpy() * row) // mmap.PAGESIZE).tolist():
        call(page * mmap.PAGESIZE, 2 * row + mmap.PAGESIZE, WILL_NEED)


def read_soon(rows: Tensor) -> None:
    """Have the system read rows [n, W] that lie end to end all at once, if they are on a disk."""
    if rows.device.type == "cpu":
        _advise(rows, WILL_NEED)


def crowds(rows: Tensor, device: torch.device) -> bool:
    """Whether rows would leave too little of the memory of a GPU."""
    size = rows.numel() * rows.element_size()
    return device.type == "cuda" and size >= DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]


def sent(rows: Tensor, device: torch.device) -> Tensor:
    """The rows on a device; the copy to a GPU goes on while the host does other things."""
    if rows.device == device or device.type != "cuda":
        return rows.to(device)
    return rows.pin_memory().to(device, non_blocking=True)


def _advise(rows: Tensor, advice: int | None) -> None:
    """Tell the system how rows will be used, where it listens."""
    call, begin = _madvise(), rows.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    if call is not None and advice is not None and rows.numel():
        size = rows.data_ptr() + rows.numel() * rows.element_size() - begin
        call(begin, size, advice)


@cache
def _madvise() -> Any:
    call = getattr(ctypes.CDLL(None), "madvise", None)
    if call is not None:
        call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return call
