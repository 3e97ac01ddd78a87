"""What speed benchmarks share: a process a thread count, and ratios of alternating rounds."""

import statistics
import subprocess
import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable, Sequence

import torch

from awr_exp.training.accelerate import fast_float32_products


def each_thread_count(parser: ArgumentParser, measure: Callable[[Namespace], None]) -> None:
    """Call measure with the options, in one process a thread count: threads cannot be changed cleanly inside one."""
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--one", action="store_true", help=SUPPRESS)
    options = parser.parse_args()
    if not options.one:
        for threads in options.threads:
            subprocess.run([sys.executable, *sys.argv, "--one", "--threads", str(threads)], check=True)
        return
    torch.set_num_threads(options.threads[0])
    print(f"faster float32 products through oneDNN: {fast_float32_products()}")
    measure(options)


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def ratio(numbers: Sequence[float], to: Sequence[float]) -> float:
    """Median over the rounds of the ratios."""
    return statistics.median(a / b for a, b in zip(numbers, to, strict=True))
