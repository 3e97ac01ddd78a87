"""Where the rows of a data set come to lie while they are read: in memory, or in a file where they do not fit that."""

import fcntl
import logging
import os
import shutil
import threading
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from awr_exp.data.mapped import mapped, read_at_random
from awr_exp.errors import UserError, named
from awr_exp.machine import free_memory
from awr_exp.surroundings import interruptible

log = logging.getLogger(__name__)

MARGIN = 2**25
"""Bytes of a disk that are left free."""


class WaitedError(Exception):
    """Another process has made, or has tried to make, what was to be made here."""


def fits(size: int) -> bool:
    """Whether so many bytes of rows are kept in memory; more are mapped from a file."""
    return size < free_memory() / 2


class Room:
    """Room for the packed rows of data set `id`, which come piece by piece, in order.

    drafts: the files in which they may lie, of which the first is taken whose disk has room. Whoever leaves without
    having taken the draft away deletes it, and that of a process which was killed is overwritten.
    """

    def __init__(self, id: str, drafts: Iterable[Path]) -> None:
        self.id, self.drafts = id, list(drafts)
        self.stack = ExitStack()
        self.draft: Path | None = None
        self.file: IO[bytes] | None = None
        self.filled = 0

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *error: Any) -> None:
        self.stack.__exit__(*error)

    def begin(self, rows: int, width: int) -> None:
        """Make room for rows [rows, width]. Raises UserError where there is none, and `WaitedError`."""
        size = 4 * rows * width
        if fits(size) or not self._opened(size):
            if size > (free := free_memory()):
                tried = " or ".join(str(draft.parent) for draft in self.drafts)
                raise UserError(
                    f"data set '{self.id}' takes {size / 1e9:.1f} GB, {width} numbers a step: {free / 1e9:.1f} GB of "
                    f"memory are free, and its mapped form finds no room in {tried}: make some, read it on a "
                    "larger machine, or write it anew in parts"
                )
            self.packed = torch.zeros(rows, width)
            return
        log.info(
            "data set '%s' is larger than the memory: %.1f GB are written to %s once", self.id, size / 1e9, self.draft
        )
        form = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        self._write(lambda file: np.lib.format.write_array_header_1_0(file, form))

    def add(self, rows: Tensor) -> None:
        """Take the next rows [n, width]. Raises UserError where the disk is full."""
        if self.file is None:
            self.packed[self.filled : self.filled + len(rows)] = rows
            self.filled += len(rows)
        else:
            self._write(lambda file: file.write(rows.numpy().data))

    def all(self) -> Tensor:
        """All rows, once the last one is here."""
        if self.file is None:
            return self.packed
        assert self.draft is not None
        return read_at_random(mapped(self.draft))

    def _write(self, act: Any) -> None:
        assert self.file is not None
        try:
            act(self.file)
            self.file.flush()
        except OSError as error:
            # What could not be written would be tried again.
            with suppress(OSError):
                self.file.close()
            raise UserError(f"data set '{self.id}': {self.draft} cannot be written: {named(error)}") from None

    def _opened(self, size: int) -> bool:
        """Whether there is a draft now."""
        for draft in self.drafts:
            try:
                draft.parent.mkdir(parents=True, exist_ok=True)
                # It goes if nothing comes to lie there.
                self.stack.callback(_delete_empty, draft.parent)
                if shutil.disk_usage(draft.parent).free > size + MARGIN and not draft.parent.is_symlink():
                    self._open(draft)
                    return True
            except OSError as error:
                log.debug("no mapped form in %s: %s", draft.parent, error)
        return False

    def _open(self, draft: Path) -> None:
        """Open a draft that nobody else writes to."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        file = self.stack.enter_context(os.fdopen(os.open(draft, flags, 0o644), "r+b"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process writes %s: waiting for it", draft)
            fcntl.flock(file, fcntl.LOCK_EX)
            raise WaitedError from None
        self.draft, self.file, self.identity = draft, file, os.fstat(file.fileno())
        if not self._own():
            raise WaitedError
        if threading.current_thread() is threading.main_thread():
            self.stack.enter_context(interruptible())
        self.stack.callback(self._delete)
        file.truncate(0)

    def _delete(self) -> None:
        if self.draft and self._own():
            self.draft.unlink()

    def _own(self) -> bool:
        """Whether the draft is there still, and not another one of this name."""
        with suppress(OSError):
            return self.draft is not None and os.path.samestat(self.draft.lstat(), self.identity)
        return False


def _delete_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
