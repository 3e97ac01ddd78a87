"""What is wrong with an HDF5 file that cannot be read, in words, and what helps."""

import errno
import os

import h5py

from awr_exp.errors import first_line

AGAIN = "delete the data set, and fetch it (dataset.download=true) or write it again"
"""The advice where a data set is damaged."""


def trouble(error: Exception) -> str:
    """A text that says what is wrong with an HDF5 file, and what helps."""
    said, number = " ".join(str(error).split()), getattr(error, "errno", None)
    if "lock file" in said and number in (errno.EAGAIN, errno.EACCES):
        return "is locked by another program, which may be writing it: wait until that is done"
    if "lock file" in said:
        return f"cannot be locked ({os.strerror(number or 0)}), as on some network drives: HDF5_USE_FILE_LOCKING=FALSE"
    if "already open for write" in said:
        return "is open for writing: wait until that is done, or run h5clear -s on it if what wrote it was killed"
    if "version number" in said:
        return f"is of a newer HDF5 than {h5py.version.hdf5_version}, or damaged ({said}): update h5py, or {AGAIN}"
    if "filter" in said and ("not registered" in said or "not available" in said or "open directory" in said):
        return f"is compressed in a way that is not installed here ({said}): write it anew without, or install that"
    if number:
        return f"cannot be read: {os.strerror(number)}"
    return f"is damaged ({first_line(error)}); {AGAIN}"
