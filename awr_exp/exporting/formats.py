"""The kinds of files that there are, and what is wrong with a place for one. Nothing here imports torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from awr_exp.errors import UserError

Acting = Callable[[NDArray[np.float32]], tuple[NDArray[Any], NDArray[np.float32] | None]]
"""From observations [B, obs_dim] to actions [B, ...], and the noise that these were drawn with, if they were."""


@dataclass(frozen=True)
class Format:
    """A kind of file. Its module has two functions.

    `encoded(program, about)` makes its bytes of an exported program and of texts by name, and `acting(content)` what
    acts by these bytes as a stranger would. needs: packages of the extra, which bring these.
    """

    module: str
    reader: str
    needs: tuple[str, ...] = ()
    extra: str = ""

    def encoded(self, program: Any, about: Mapping[str, str]) -> bytes:
        return import_module(self.module).encoded(program, about)

    def acting(self, content: bytes) -> Acting:
        return import_module(self.module).acting(content)


FORMATS = {
    ".onnx": Format("awr_exp.exporting.of_onnx", "onnxruntime", ("onnx", "onnxscript", "onnxruntime"), "onnx"),
    ".pt2": Format("awr_exp.exporting.of_torch", "torch alone"),
    ".npz": Format("awr_exp.exporting.of_numpy", "NumPy alone"),
}


def chosen(path: Path) -> Format:
    """The format that a file's suffix says. Raises UserError if there is none, or one that lacks its packages."""
    found = FORMATS.get(path.suffix)
    if found is None:
        known = ", ".join(f"{suffix} for {one.reader}" for suffix, one in FORMATS.items())
        raise UserError(f"{path} is of no kind that a policy can be exported to: end it with one of {known}")
    for package in found.needs:
        if find_spec(package) is None:
            raise UserError(f"{path} needs {package}, which is not installed: pip install 'awr-exp[{found.extra}]'")
    return found


def check_place(path: Path) -> None:
    """Raises UserError if a file cannot be made there, or is there already: somebody may act by it."""
    if path.exists():
        raise UserError(f"{path} is there already: choose another name, or delete it")
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
