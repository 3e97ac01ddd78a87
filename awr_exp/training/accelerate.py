"""The same update, faster: compiled, and on a GPU replayed as one captured graph."""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from awr_exp.errors import UserError, first_line
from awr_exp.machine import cores, own_cache, own_folder
from awr_exp.training.progress import compiling
from awr_exp.types import Batch, Metrics
from awr_exp.vocabulary import MOST_THREADS

log = logging.getLogger(__name__)

LONG_RUN = 5_000
"""Updates of all members together from which compiling, 20 s on first use and a few from its cache, pays off."""
FLOAT32_ERROR = 5e-6
"""Relative error up to which a matrix product counts as float32."""

Update = Callable[..., Any]
"""What learns from a batch, or from other tensors, and returns metrics."""


def compiler() -> str | None:
    """A C++ compiler of this machine, if it has one."""
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), None)


def pays_off(mode: str | bool, updates: int, device: torch.device) -> bool:
    """Whether so many updates of all members together should be compiled, by the mode of `accelerate`."""
    if mode == "auto":
        return updates >= LONG_RUN and (device.type == "cuda" or compiler() is not None)
    return bool(mode)


def accelerate(
    function: Callable[..., Metrics], mode: str | bool, updates: int, device: torch.device
) -> Callable[..., Update]:
    """A faster form of a function: it takes an agent, and what else stays the same, and gives a function of the rest.

    Results are the same up to rounding.
    mode: True, False, or "auto": for long runs where a C++ compiler (CPU) is found. Agents of the same shapes share
    what is compiled. What cannot be compiled runs as it is, with one line that says so.
    """
    if not pays_off(mode, updates, device):
        return partial(partial, function)
    keep_compiled_code()
    # A sweep compiles the same code for one agent after another: without this it would hit the limit of variants.
    torch.compiler.reset()
    # Calls between kernels from C++: a fifth faster where networks are small, and outside Python's lock.
    options: dict[str, Any] | None = {"cpp_wrapper": True} if device.type == "cpu" else None
    compiled = _Guarded(function, torch.compile(function, dynamic=False, options=options))
    if device.type == "cuda":
        return lambda *owners: Graphed(partial(compiled, *owners))
    return partial(partial, compiled)


def keep_compiled_code() -> None:
    """Let the compiler keep what it runs later in a folder that nobody else can write to, unless the user chose one.

    By itself it takes one in /tmp, whosever that is.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        temporary = Path(tempfile.gettempdir(), f"awr_exp_inductor_{os.getuid()}")
        kept = own_cache("inductor") or own_folder(temporary) or tempfile.mkdtemp(prefix="awr_exp_inductor_")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(kept)


class _Guarded:
    """Falls back to the plain update if the first call of the compiled one fails."""

    def __init__(self, plain: Callable[..., Metrics], compiled: Callable[..., Metrics]) -> None:
        self.plain, self.call, self.tried, self.lock = plain, compiled, False, Lock()

    def __call__(self, *arguments: Any) -> Metrics:
        if self.tried:
            return self.call(*arguments)
        with self.lock:
            try:
                with compiling("about 20 s"):
                    return self.call(*arguments)
            except Exception as error:
                # The compiler wraps what went wrong in a message whose first line does not say it.
                cause = getattr(error, "inner_exception", error)
                log.warning("compilation failed, going on without: %s", first_line(cause))
                self.call = self.plain
                return self.plain(*arguments)
            finally:
                self.tried = True


class Graphed:
    """Captures an update as a CUDA graph on its second call and replays it on fixed memory from then on."""

    def __init__(self, update: Update) -> None:
        self.update = update
        self.arguments: list[Batch | Tensor] | None = None
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *arguments: Batch | Tensor) -> Metrics:
        if self.arguments is None:
            # Allocations and compilation happen here: they may not be captured. It compiles for the copies' strides.
            self.arguments = [_copy(argument) for argument in arguments]
            return self.update(*self.arguments)
        for mine, theirs in zip(self.arguments, arguments, strict=True):
            for name, tensor in _tensors(theirs).items():
                _tensors(mine)[name].copy_(tensor)
        if self.graph is None:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.metrics = self.update(*self.arguments)
        self.graph.replay()
        return self.metrics


def _tensors(argument: Batch | Tensor) -> dict[str, Tensor]:
    content = {"": argument} if isinstance(argument, Tensor) else vars(argument)
    return {name: tensor for name, tensor in content.items() if tensor is not None}


def _copy(argument: Batch | Tensor) -> Batch | Tensor:
    copies = {name: tensor.clone() for name, tensor in _tensors(argument).items()}
    return copies[""] if isinstance(argument, Tensor) else Batch(**copies)


def start(name: str, threads: int | None) -> torch.device:
    """Set the number of threads and the kind of matrix product, and return the device.

    name: auto (the GPU if there is one), cpu, cuda or cuda:<n>; threads: None is what OMP_NUM_THREADS says, by which
    joblib, Ray and others share the cores among processes, or else as many as this process may use.
    Raises UserError if the device is not there.
    """
    share = os.environ.get("OMP_NUM_THREADS", "")
    own = int(share) if share.isdecimal() and int(share) else cores()
    torch.set_num_threads(threads or min(own, MOST_THREADS))
    if threads and threads > cores():
        log.warning("threads=%d are more than the %d cores of this process, and wait for one another", threads, cores())
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name} is not there: use device=auto or device=cpu")
    if device.type == "cpu":
        fast_float32_products()
    else:
        # An earlier job of this process, on the CPU, may have allowed what on a GPU means TF32.
        torch.set_float32_matmul_precision("highest")
    return device


def fast_float32_products() -> bool:
    """Let oneDNN multiply float32 matrices where it stays float32, twice as fast on AMD processors; True if it may.

    On processors with bfloat16 units the same setting really rounds, so the error is measured, not assumed.
    """
    before = torch.get_float32_matmul_precision()
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    torch.set_float32_matmul_precision("medium")
    error = float((torch.bmm(a, b) - exact).norm() / exact.norm())
    if error <= FLOAT32_ERROR:
        return True
    torch.set_float32_matmul_precision(before)
    return False
